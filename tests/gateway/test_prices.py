"""Which price a request pays: the one that holds when it comes."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom

from apps.policies.models import Price
from apps.policies.prices import PriceBook
from tests.gateway.house import House, chat, pipeline, run

DAY = timedelta(days=1)


def test_a_price_of_the_catalogue_holds_from_its_day_on() -> None:
    begins, book = datetime(2025, 6, 10, tzinfo=UTC), PriceBook([])  # when OpenAI's o3 became cheaper
    before, after = book.price("openai", "o3", begins - timedelta(seconds=1)), book.price("openai", "o3", begins)
    assert before is not None
    assert after is not None
    assert before.cost(1000, 1000) > after.cost(1000, 1000)
    assert book.price("openai", "o3", begins - DAY) == before
    assert book.price("openai", "o3", begins + DAY) == after


def test_a_price_of_ones_own_holds_from_the_next_request_on_and_not_before_its_day(tmp_path: Path) -> None:
    house = House()
    model = f"sim-usage-100-{SystemRandom().randrange(10**6, 10**9)}"
    rows = {"provider": "simulated", "model": model, "output_nano_usd": 0}
    now = datetime.now(UTC)

    def change(input_nano_usd: int, effective_from: datetime) -> None:
        Price.objects.create(**rows, input_nano_usd=input_nano_usd, effective_from=effective_from)

    async def calls() -> None:
        async with pipeline(tmp_path) as path:
            for change_first in (lambda: None, lambda: change(5 * 10**6, now - DAY), lambda: change(10**6, now + DAY)):
                await asyncio.to_thread(change_first)
                assert (await path.complete_chat(chat(house.key, model))).status == 200

    run(calls)
    first, second, third = (record.cost_nano_usd for record in house.records())
    assert first > 10**9
    assert (second, third) == (500, 500)
