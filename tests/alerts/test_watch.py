"""What is noticed, and that it is told once."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.alerts import watch
from apps.audit.alerts import count_interrupted
from apps.audit.models import Alert
from apps.gateway.models import ModelRoute
from apps.gateway.sweeper import sweep
from apps.orgs import keys
from apps.orgs.models import ApiKey
from apps.policies.models import Price
from tests.encryption.kept import kept
from tests.gateway.house import House, chat, pipeline, run
from tests.gateway.test_sweeper import CAP, left_open
from tests.mock_upstream import Behaviour, MockUpstream


def alerts(house: Any, kind: str) -> list[Alert]:
    return list(Alert.objects.filter(organization_id=house.organization.pk, kind=kind).order_by("id"))


# --- Keys


def test_a_key_is_told_of_at_14_3_and_1_days_once_each_and_anew_if_it_gets_another_date() -> None:
    house, now = House(), timezone.now()
    key = keys.issue(organization=house.organization, application=house.application, name="old one").row
    expires(key, now + timedelta(days=13))
    for days in (15, 13, 13, 3, 2.5, 0.9, 0.5, -1):
        watch.look_at_keys(key.expires_at - timedelta(days=days))
    told = alerts(house, "key_expiring")
    assert [one.details["days"] for one in told] == [14, 3, 1]
    assert key.prefix in told[0].text
    assert key.digest not in str(told[0].details)
    expires(key, now + timedelta(days=100))
    watch.look_at_keys(key.expires_at - timedelta(days=10))
    assert len(alerts(house, "key_expiring")) == 4


def test_a_key_that_was_made_for_a_day_or_is_revoked_is_not_told_of() -> None:
    house, now = House(), timezone.now()
    short = keys.issue(organization=house.organization, application=house.application, name="short").row
    expires(short, now + timedelta(hours=20), created=now)
    revoked = keys.issue(organization=house.organization, application=house.application, name="revoked").row
    expires(revoked, now + timedelta(days=2))
    revoked.revoke()
    watch.look_at_keys(now)
    assert alerts(house, "key_expiring") == []


def expires(key: ApiKey, at: Any, created: Any = None) -> None:
    created = created or timezone.now() - timedelta(days=300)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=at, created_at=created)
    key.refresh_from_db()


# --- Interrupted requests


def test_interrupted_requests_are_told_in_sums_of_their_organization_and_hour(tmp_path: Path) -> None:
    house, other = House([CAP]), House([CAP])
    for _ in range(3):
        left_open(house, tmp_path)
        left_open(other, tmp_path) if not alerts(other, "requests_interrupted") else None
        sweep()
    (told,) = alerts(house, "requests_interrupted")
    assert (told.details["requests"], told.title) == (3, "3 requests were interrupted")
    assert told.due_at > told.timestamp
    sweep()
    assert alerts(house, "requests_interrupted") == [told]


def test_what_is_interrupted_after_the_first_were_told_is_told_when_the_hour_is_over() -> None:
    house, now = House(), timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    interrupted(house, 2, now)
    Alert.objects.filter(organization_id=house.organization.pk).update(told_at=now)
    for number in (4, 5):
        interrupted(house, number, now)
    interrupted(house, 1, now + timedelta(hours=1))
    first, rest, next_hour = alerts(house, "requests_interrupted")
    assert [one.details["requests"] for one in (first, rest, next_hour)] == [2, 9, 1]
    assert rest.due_at == hour + timedelta(hours=1)


@transaction.atomic
def interrupted(house: House, number: int, now: datetime) -> None:
    count_interrupted(house.organization.pk, number, now)


# --- Providers


@transaction.atomic
def look() -> None:
    watch.look_at_providers(timezone.now())


@pytest.fixture
def down_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DOWN_FOR", timedelta(0))


def with_a_provider(upstream: MockUpstream) -> House:
    house = House(allow=("*",))
    rates = {"input_nano_usd": 1, "output_nano_usd": 1}
    Price.objects.get_or_create(provider="openai_compatible", model="llama", defaults=rates)
    row = kept(house.organization, "sk-of-the-provider", provider="openai_compatible", base_url=upstream.base_url)
    ModelRoute.objects.create(organization=house.organization, model="llama", credential=row)
    return house


def call(house: House, folder: Path, times: int, model: str = "llama") -> list[int]:
    async def work() -> list[int]:
        async with pipeline(folder) as path:
            return [(await path.complete_chat(chat(house.key, model))).status for _ in range(times)]

    statuses: list[int] = run(work)
    return statuses


def test_a_provider_that_fails_five_times_in_a_row_is_told_of_once_and_again_once_it_answers(
    tmp_path: Path, down_at_once: None
) -> None:
    with MockUpstream() as upstream:
        house = with_a_provider(upstream)
        upstream.script(Behaviour(), *[Behaviour(status=500)] * 4)
        assert call(house, tmp_path, 5) == [200, 502, 502, 502, 502]
        look()
        assert alerts(house, "provider_down") == []
        upstream.script(*[Behaviour(status=503)] * 3)
        call(house, tmp_path, 3)
        for _ in range(3):
            look()
        (down,) = alerts(house, "provider_down")
        assert (down.state, down.details["failed_attempts"], down.details["model"]) == ("raised", 7, "llama")
        assert "sk-of" not in f"{down.text}{down.details}"
        call(house, tmp_path, 1)
        for _ in range(3):
            look()
        down, up = alerts(house, "provider_down")
        assert (up.state, up.title) == ("resolved", "openai_compatible answers again for llama")
        assert up.details["raised_id"] == str(down.pk)
        assert down.resolved_at is not None


def test_failures_of_a_moment_and_refusals_of_the_request_are_no_outage(tmp_path: Path) -> None:
    with MockUpstream() as upstream:
        house = with_a_provider(upstream)
        upstream.script(*[Behaviour(status=500)] * 8)
        call(house, tmp_path, 8)
        look()
        assert alerts(house, "provider_down") == []  # they lie within 30 s


def test_refusals_are_answers(tmp_path: Path, down_at_once: None) -> None:
    with MockUpstream() as upstream:
        house = with_a_provider(upstream)
        upstream.script(*[Behaviour(status=429)] * 6)
        call(house, tmp_path, 6)
        look()
        assert alerts(house, "provider_down") == []


def test_what_fails_behind_a_route_that_goes_on_to_another_target_is_told_of(
    tmp_path: Path, down_at_once: None
) -> None:
    with MockUpstream() as broken, MockUpstream() as sound:
        house = with_a_provider(broken)
        row = kept(house.organization, "sk-2", provider="openai_compatible", base_url=sound.base_url)
        Price.objects.get_or_create(
            provider="openai_compatible", model="llama-2", defaults={"input_nano_usd": 1, "output_nano_usd": 1}
        )
        ModelRoute.objects.create(
            organization=house.organization, model="llama", credential=row, priority=1, upstream_model="llama-2"
        )
        broken.script(*[Behaviour(status=500)] * 6)
        assert call(house, tmp_path, 6) == [200] * 6
        look()
        (down,) = alerts(house, "provider_down")
        assert down.details["model"] == "llama"


def test_the_platform_hears_of_what_several_organizations_meet_without_their_names(
    tmp_path: Path, down_at_once: None
) -> None:
    model = f"llama-{os.urandom(4).hex()}"
    rates = {"input_nano_usd": 1, "output_nano_usd": 1}
    Price.objects.create(provider="openai_compatible", model=model, **rates)
    with MockUpstream() as upstream:
        houses = [with_a_provider(upstream) for _ in range(2)]
        for house in houses:
            ModelRoute.objects.filter(organization=house.organization).update(model=model)
            upstream.script(*[Behaviour(status=500)] * 5)
            call(house, tmp_path, 5, model)
        look()
        (told,) = Alert.objects.filter(organization_id=None, kind="provider_down", details__model=model)
        assert told.details["organizations"] == 2
        for house in houses:
            assert house.organization.name not in f"{told.text}{told.details}"
            call(house, tmp_path, 1, model)
        look()
        look()
        states = Alert.objects.filter(organization_id=None, kind="provider_down", details__model=model)
        assert sorted(one.state for one in states) == ["raised", "resolved"]


def test_the_database_finds_failed_attempts_by_an_index(postgres_only: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        query = watch.failed_records(timezone.now() - timedelta(minutes=15))
        plan = query.explain()
        cursor.execute("RESET enable_seqscan")
    assert "record_failed_attempts" in plan or "failed_attempts" in plan or "id_idx" in plan, plan
