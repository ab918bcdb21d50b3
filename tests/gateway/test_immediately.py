"""What an admin changes holds for the very next request, though every process keeps copies."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from apps.orgs.models import ApiKey, Application, Organization
from apps.policies.models import Policy
from tests.gateway.everywhere import everywhere, failed
from tests.gateway.house import House, chat, pipeline, run

CHANGES: list[tuple[str, Callable[[House], object], int]] = [
    ("a revoked key", lambda h: h.api_key.revoke(), 401),
    (
        "an expired key",
        lambda h: ApiKey.objects.filter(pk=h.api_key.pk).update(expires_at=timezone.now() - timedelta(seconds=1)),
        401,
    ),
    ("a deleted key", lambda h: h.api_key.delete(), 401),
    ("an inactive application", lambda h: Application.objects.filter(pk=h.application.pk).update(is_active=False), 401),
    (
        "a suspended organization",
        lambda h: Organization.objects.filter(pk=h.organization.pk).update(state="suspended"),
        403,
    ),
    ("a new policy", lambda h: h.add("model_restriction", {"deny": ["*"]}), 403),
    ("a policy of this key", lambda h: h.add("model_restriction", {"deny": ["*"]}, api_key=h.api_key), 403),
    ("no policy any more", lambda h: Policy.objects.filter(organization=h.organization).delete(), 403),
    (
        "a policy broken by hand",
        lambda h: Policy.objects.filter(organization=h.organization).update(config={"x": 1}),
        403,
    ),
]


@pytest.mark.parametrize(("name", "change", "status"), CHANGES, ids=[c[0] for c in CHANGES])
def test_a_change_refuses_the_next_request(
    tmp_path: Path, name: str, change: Callable[[House], object], status: int
) -> None:
    house = House()

    async def before_and_after() -> list[int]:
        async with pipeline(tmp_path) as path:
            first = (await path.complete_chat(chat(house.key))).status
            await asyncio.to_thread(change, house)
            return [first, (await path.complete_chat(chat(house.key))).status]

    assert run(before_and_after) == [200, status]


def test_what_was_refused_is_allowed_as_soon_as_a_policy_allows_it(tmp_path: Path) -> None:
    house = House(allow=())

    async def before_and_after() -> list[int]:
        async with pipeline(tmp_path) as path:
            first = (await path.complete_chat(chat(house.key))).status
            await asyncio.to_thread(house.add, "model_restriction", {"allow": ["sim-*"]})
            return [first, (await path.complete_chat(chat(house.key))).status]

    assert run(before_and_after) == [403, 200]


def test_an_organization_that_is_active_again_is_served_at_once(tmp_path: Path) -> None:
    house = House()

    def set_state(state: str) -> Any:
        return Organization.objects.filter(pk=house.organization.pk).update(state=state)

    async def back_and_forth() -> list[int]:
        statuses = []
        async with pipeline(tmp_path) as path:
            for state in ("suspended", "active", "suspended", "active"):
                await asyncio.to_thread(set_state, state)
                statuses.append((await path.complete_chat(chat(house.key))).status)
        return statuses

    assert run(back_and_forth) == [403, 200, 403, 200]


def test_twenty_changes_each_hold_for_the_next_request_in_four_processes(tmp_path: Path) -> None:
    with everywhere(tmp_path, REDIS_URL=None) as servers:
        trials = servers.trials(20)
    assert len(trials) == 20
    assert failed(trials) == []
