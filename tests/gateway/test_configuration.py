"""A burst of requests reads a configuration once, and is none the worse for it."""

import asyncio
from collections.abc import Callable
from typing import Any

from apps.gateway.configuration import Caller, Configuration, Configurations
from apps.orgs.models import ApiKey
from tests.gateway.house import House

BURST = 20


class Counted(Configurations):
    """Copies that count how often they are read; ``meanwhile`` happens when the first reading is done."""

    def __init__(self, meanwhile: Any = None) -> None:
        super().__init__()
        self.readings = 0
        self._meanwhile = meanwhile

    def _load_by_name(self, name: str, find: Callable[[], ApiKey | None]) -> Configuration | None:
        self.readings += 1
        is_first = self.readings == 1
        found = super()._load_by_name(name, find)
        if is_first and self._meanwhile is not None:
            self._meanwhile()
        return found


def burst(configurations: Counted, key: str) -> list[tuple[Caller, Configuration] | None]:
    async def find_all() -> list[tuple[Caller, Configuration] | None]:
        return await asyncio.gather(*[configurations.find(key) for _ in range(BURST)])

    try:
        return asyncio.run(find_all())
    finally:
        configurations.close()


def test_a_burst_shares_one_reading() -> None:
    house, configurations = House(), Counted()
    found = burst(configurations, house.key)
    assert all(caller is not None and caller[0].api_key_id == house.api_key.id for caller in found)
    assert configurations.readings == 1


def test_a_key_that_is_made_while_another_request_reads_that_there_is_none_is_found() -> None:
    house = House()
    house.api_key.delete()
    configurations = Counted(meanwhile=lambda: house.api_key.save(force_insert=True))
    first, *others = burst(configurations, house.key)
    assert first is None
    assert all(other is not None for other in others)
