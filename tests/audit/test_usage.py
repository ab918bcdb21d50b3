"""Usage in sums: every number is that of the records, whatever has been summed up, when, and by whom."""

import os
import random
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction

from apps.audit import rollups, usage
from apps.audit.latency import BOUNDS_MS, percentile
from apps.audit.models import (
    CountedTag,
    LateRecord,
    RequestRecord,
    RollupState,
    TagDay,
    UsageDay,
    UsageHour,
    UsageSlice,
)
from apps.audit.rows import columns_of, insert_rows
from apps.audit.usage import Period, Scope
from apps.audit.uuid7 import first_id_at
from apps.policies.ledger import prove
from apps.policies.models import Budget, LedgerEntry
from tests.budgets.test_ledger import spend
from tests.gateway.house import House
from tests.services import accounts
from tests.services.database_roles import addresses
from tests.services.server import ROOT, empty_database

NOW = datetime.now(UTC)
GROUPINGS = ["application_id", "user_id", "model", "provider", "status", "error_code", "policy_id"]
ENDS = [
    {"status": "success"},
    {"status": "error", "error_code": "PROVIDER_ERROR"},
    {"status": "interrupted", "error_code": "INTERRUPTED"},
    {"status": "cancelled"},
]


def refused(policy: str) -> dict[str, Any]:
    shadow = {"code": "X", "message": "", "enforced": False, "policy": "shadow", "policy_id": str(uuid4())}
    reason = {"code": "X", "message": "", "enforced": True, "policy": "wall", "policy_id": policy}
    return {"status": "blocked", "error_code": "X", "reasons": [shadow, reason, {**reason, "policy_id": "second"}]}


class Tenant:
    """An organization's records, made out of chance; nothing else of it exists."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.scope = Scope(frozenset({self.id}))
        self._chance = random.Random(7)
        self.applications = [None, uuid4(), uuid4()]
        self._endings = [*ENDS, refused(str(uuid4())), refused(str(uuid4()))]

    def record(self, at: datetime, **columns: Any) -> RequestRecord:
        chance, application = self._chance, self._chance.choice(self.applications)
        return RequestRecord(
            **{
                "id": UUID(int=first_id_at(at).int | (uuid4().int & ((1 << 80) - 1))),
                "timestamp": at,
                "organization_id": self.id,
                "organization_name": "tenant",
                "application_id": application,
                "application_name": "app" if application else "",
                "endpoint": "chat.completions",
                "model": chance.choice(["a", "b|c", "ü", ""]),
                "provider": chance.choice(["openai", ""]),
                "http_status": 200,
                "tokens_input": chance.randrange(1000),
                "tokens_output": chance.randrange(1000),
                "cost_nano_usd": chance.randrange(10**12),
                "latency_ms": chance.choice([0, 49, 50, 51, 777, 64_001]),
                "metadata": chance.choice([{}, {"team": "red"}, {"team": ""}, {"team": "blue", "n": "1"}]),
            }
            | chance.choice(self._endings)
            | columns
        )

    def make(self, count: int, hours: int = 60) -> None:
        seconds = [self._chance.randrange(hours * 3600) for _ in range(count)]
        for second in seconds:  # one by one: a trigger looks at each
            self.record(NOW - timedelta(seconds=second)).save(force_insert=True)

    def records(self) -> list[RequestRecord]:
        return list(RequestRecord.objects.filter(organization_id=self.id))


def plain(records: Sequence[RequestRecord]) -> tuple[int, ...]:
    """What the sums of records must be, added one by one; the last number is of slow successes."""
    return (
        len(records),
        sum(record.tokens_input for record in records),
        sum(record.tokens_output for record in records),
        sum(record.cost_nano_usd for record in records),
        sum(record.status == "blocked" for record in records),
        sum(record.status in ("error", "interrupted") for record in records),
        sum(record.status == "success" and record.latency_ms > BOUNDS_MS[-1] for record in records),
    )


def said(sums: usage.Sums) -> tuple[int, ...]:
    own = (sums.requests, sums.tokens_input, sums.tokens_output, sums.cost_nano_usd, sums.blocked, sums.errors)
    return (*own, sums.latencies[-1])


def key_of(record: RequestRecord, grouping: str) -> str | None:
    if grouping == "policy_id":
        return next((one["policy_id"] for one in record.reasons if one["enforced"]), "")
    value = getattr(record, grouping)
    return None if value is None else str(value)


def grouped(records: Sequence[RequestRecord], key: Callable[[RequestRecord], Any]) -> dict[Any, tuple[int, ...]]:
    groups: dict[Any, list[RequestRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return {name: plain(members) for name, members in groups.items()}


def assert_exact(tenant: Tenant) -> None:
    """Every number over whole and odd periods is what the records add up to."""
    records, midnight = tenant.records(), NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    periods = [
        Period(),
        Period(midnight - timedelta(days=1), midnight + timedelta(days=1)),
        Period(NOW - timedelta(hours=31, minutes=7), NOW - timedelta(minutes=11)),
        Period(NOW - timedelta(minutes=40), NOW - timedelta(minutes=20)),
    ]
    one = tenant.applications[1]
    for period in periods:
        within = [record for record in records if period.since <= record.timestamp < period.until]
        assert_sums(tenant.scope, period, within)
        assert_sums(replace(tenant.scope, application=one), period, [r for r in within if r.application_id == one])


def assert_sums(scope: Scope, period: Period, within: Sequence[RequestRecord]) -> None:
    sums, groups = usage.breakdown(scope, period, GROUPINGS)
    assert said(sums) == plain(within)
    for grouping in GROUPINGS:
        only = {"policy_id": lambda r: r.status == "blocked", "error_code": lambda r: bool(r.error_code)}
        members = [record for record in within if only.get(grouping, bool)(record)]
        expected = grouped(members, lambda record, by=grouping: key_of(record, by))
        assert {group.key: said(group.sums) for group in groups[grouping]} == expected, grouping
    for unit in (usage.HOUR, usage.DAY):
        floor = {"minute": 0, "second": 0, "microsecond": 0} | ({"hour": 0} if unit == usage.DAY else {})
        expected = grouped(within, lambda record, floor=floor: record.timestamp.replace(**floor))
        found = usage.timeline(scope, period, unit)
        assert {start: said(sums) for start, sums in found.items() if sums.requests} == expected


def assert_tags_exact(tenant: Tenant) -> None:
    tagged = [record for record in tenant.records() if "team" in record.metadata]
    found = usage.by_tag(tenant.scope, Period(), "team")
    expected = {name: numbers[:-1] for name, numbers in grouped(tagged, lambda r: r.metadata["team"]).items()}
    assert {group.key: said(group.sums)[:-1] for group in found} == expected


def test_numbers_are_those_of_the_records_whatever_has_been_summed_up() -> None:
    tenant = Tenant()
    tenant.make(60)
    assert_exact(tenant)  # nothing is summed up yet
    rollups.roll([(tenant.id, "team")])
    assert not LateRecord.objects.filter(organization_id=tenant.id).exists()
    assert UsageHour.objects.filter(organization_id=tenant.id).exists()
    assert_exact(tenant)
    tenant.make(20)  # committed long after their ids were passed by
    tenant.record(datetime.now(UTC)).save(force_insert=True)
    assert LateRecord.objects.filter(organization_id=tenant.id).count() >= 20
    assert_exact(tenant)
    assert_tags_exact(tenant)
    assert rollups.roll() >= 20
    assert_exact(tenant)
    assert_tags_exact(tenant)
    rollups.roll()  # once more: what is counted is not counted again
    assert_exact(tenant)
    assert_tags_exact(tenant)
    for rebuilt in rollups.rebuild((NOW - timedelta(days=4)).date()):
        assert_tags_exact(tenant)  # while it is under way, too
        assert rebuilt
    assert_exact(tenant)
    stored = UsageDay.objects.filter(organization_id=tenant.id).values_list("requests", "cost_nano_usd")
    counted = RequestRecord.objects.filter(
        organization_id=tenant.id, id__lt=RollupState.objects.get().counted_before
    ).values_list("cost_nano_usd", flat=True)
    assert (sum(n for n, _ in stored), sum(nano for _, nano in stored)) == (len(counted), sum(counted))


def test_weeks_are_the_sums_of_their_days_whatever_is_counted_late_or_again() -> None:
    tenant = Tenant()
    tenant.make(80, hours=24 * 24)
    rollups.roll()
    assert_weeks_exact(tenant)
    tenant.make(20, hours=24 * 24)
    rollups.roll()
    assert_weeks_exact(tenant)
    weeks = UsageSlice.objects.filter(organization_id=tenant.id, days=7)
    UsageSlice.objects.filter(pk=weeks.order_by("day")[1].pk).update(requests=7777)
    for _ in rollups.rebuild((NOW - timedelta(days=24)).date()):
        pass
    assert_weeks_exact(tenant)


def assert_weeks_exact(tenant: Tenant) -> None:
    """Periods that begin and end on every day of a week, with whole weeks between and without."""
    records, midnight = tenant.records(), NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    for days, length in product(range(8, 16), (1, 6, 7, 8, 13)):
        start = midnight - timedelta(days=days)
        period = Period(start, min(start + timedelta(days=length), midnight))
        within = [record for record in records if period.since <= record.timestamp < period.until]
        sums, groups = usage.breakdown(tenant.scope, period, ["model"])
        assert said(sums) == plain(within)
        assert {one.key: said(one.sums) for one in groups["model"]} == grouped(within, lambda record: record.model)
    sums = Counter[Any](), Counter[Any]()
    for row in UsageSlice.objects.filter(organization_id=tenant.id):
        monday = row.day - timedelta(days=row.day.weekday())
        sums[row.days == 7][monday, row.dimension, row.key] += row.requests
    assert sums[0] == sums[1]


def test_a_writer_that_is_slow_to_commit_is_waited_for_and_counted_once(
    postgres_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "SETTLE", timedelta(0))  # nothing but the writer itself holds the mark back
    tenant, other = Tenant(), connections.create_connection("default")
    fresh = tenant.record(datetime.now(UTC) - timedelta(seconds=30))  # too young to be marked as late
    old = tenant.record(datetime.now(UTC) - timedelta(minutes=30))
    try:
        other.set_autocommit(False)
        began = datetime.now(UTC)
        row = {field.column: getattr(fresh, field.attname) for field in fresh._meta.concrete_fields}
        insert_rows(other, RequestRecord, [row])
        insert_rows(other, RequestRecord, [{**row, "id": old.id, "timestamp": old.timestamp}])
        assert set(row) == set(columns_of(RequestRecord))
        rollups.roll()
        assert RollupState.objects.get().counted_before < first_id_at(began - timedelta(seconds=59))
        assert usage.totals(tenant.scope, Period()).requests == 0
        other.commit()
    finally:
        other.close()
    for _ in range(2):
        assert usage.totals(tenant.scope, Period()).requests == 2
        rollups.roll()
    assert_exact(tenant)


def test_two_that_sum_up_at_once_count_nothing_twice(postgres_only: None) -> None:
    tenant = Tenant()
    tenant.make(30)

    def roll() -> None:
        try:
            for _ in range(3):
                rollups.roll()
        finally:
            connection.close()

    threads = [threading.Thread(target=roll) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    rollups.roll()
    assert_exact(tenant)


def test_while_somebody_else_sums_up_one_leaves_it_to_them(postgres_only: None) -> None:
    tenant = Tenant()
    tenant.make(3)
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT * FROM audit_rollupstate FOR UPDATE")
        assert rollups.roll() == 0
        assert_exact(tenant)
    rollups.roll()
    assert_exact(tenant)


def test_a_record_that_is_written_again_marks_nothing() -> None:
    tenant = Tenant()
    record = tenant.record(NOW - timedelta(hours=3))
    record.save(force_insert=True)
    rollups.roll()
    row = {field.column: getattr(record, field.attname) for field in record._meta.concrete_fields}
    with transaction.atomic():
        insert_rows(connection, RequestRecord, [row])
    assert not LateRecord.objects.filter(organization_id=tenant.id).exists()
    rollups.roll()
    assert usage.totals(tenant.scope, Period()).requests == 1


def test_an_ended_rebuild_goes_on_where_it_was_and_mends_what_was_wrong() -> None:
    tenant = Tenant()
    tenant.make(30)
    rollups.roll()
    UsageHour.objects.filter(organization_id=tenant.id).update(requests=1000)
    UsageDay.objects.filter(organization_id=tenant.id).update(cost_nano_usd=1)
    days = rollups.rebuild((NOW - timedelta(days=4)).date())
    first, last = next(days)
    days.close()  # as an end halfway would
    assert RollupState.objects.get().rebuilding == first + timedelta(days=1)
    call_command("rebuild_rollups")
    assert RollupState.objects.get().rebuilding is None
    assert last >= NOW.date()
    assert_exact(tenant)


def test_a_new_tags_past_is_counted_and_a_dropped_one_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = Tenant()
    tenant.make(30)
    rollups.roll([])
    monkeypatch.setitem(rollups.CHUNK, connection.vendor, 7)  # several turns
    rollups.choose_tags([(tenant.id, "team")])
    assert usage.tags_of(tenant.id) == {"team": False}
    tenant.make(5)  # late ones come while the past is being counted
    rollups.roll()
    assert usage.tags_of(tenant.id) == {"team": True}
    assert_tags_exact(tenant)
    rollups.roll([])
    assert not CountedTag.objects.filter(organization_id=tenant.id).exists()
    assert not TagDay.objects.filter(organization_id=tenant.id).exists()


def test_beyond_the_most_values_a_tags_requests_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "MOST_TAG_VALUES", 3)
    monkeypatch.setattr(usage, "MOST_TAG_VALUES", 3)
    tenant = Tenant()
    for number in [0, 0, 1, 2, 2, 3, 4, 0]:
        at = NOW - timedelta(hours=5, minutes=number)
        tenant.record(at, metadata={"ticket": str(number)}).save(force_insert=True)
    rollups.roll([(tenant.id, "ticket")])
    late = tenant.record(NOW - timedelta(hours=9), metadata={"ticket": "9"})
    late.save(force_insert=True)
    known = tenant.record(NOW - timedelta(hours=9), metadata={"ticket": "2"})
    known.save(force_insert=True)
    for _ in range(2):
        groups = {group.key: group.sums.requests for group in usage.by_tag(tenant.scope, Period(), "ticket")}
        assert groups == {"0": 3, "2": 3, "1": 1, None: 3}
        rollups.roll()
    rollups.roll([])


def test_spend_is_the_ledgers(tmp_path: Any) -> None:
    house = House([("cost_cap", {"limit_usd": "1", "per": "total"})])
    scope = Scope(frozenset({house.organization.id}))
    spend(house, tmp_path, requests=3)
    for _ in range(2):
        [budget] = Budget.objects.filter(organization_id=house.organization.id)
        posted = LedgerEntry.objects.filter(budget=budget).values_list("amount_nano_usd", flat=True)
        assert usage.totals(scope, Period()).cost_nano_usd == sum(posted) == budget.spent_nano_usd > 0
        assert prove(house.organization.id).differences == []
        rollups.roll()


def test_percentiles_are_read_to_within_two_bounds() -> None:
    chance = random.Random(3)
    latencies = sorted(int(chance.lognormvariate(7, 1)) for _ in range(5000))
    counts = Counter(next((i for i, bound in enumerate(BOUNDS_MS) if ms <= bound), len(BOUNDS_MS)) for ms in latencies)
    for percent in (50, 95, 99):
        read = percentile([counts[i] for i in range(len(BOUNDS_MS) + 1)], percent)
        exact = latencies[int(len(latencies) * percent / 100)]
        assert read is not None
        assert abs(read - exact) / exact < 0.2
    assert percentile([0] * (len(BOUNDS_MS) + 1), 50) is None


def test_the_weeks_of_what_was_counted_before_there_were_weeks_are_added_up(postgres_only: None) -> None:
    url = empty_database()
    environment = {**os.environ, **addresses(url), "DATABASE_URL": url}
    environment.pop("WORKER_DATABASE_URL", None)

    def migrate(*to: str) -> None:
        subprocess.run([sys.executable, "manage.py", "migrate", *to, "-v", "0"], cwd=ROOT, env=environment, check=True)

    migrate("audit", "0006")
    days = [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 8), date(2026, 3, 9)]  # from a Sunday on
    for day, requests in zip(days, (1, 10, 100, 1000), strict=True):
        accounts.read(url, _SLICE_OF_A_DAY, uuid4().int % 2**62, UUID(int=7), day, requests)
    migrate("audit")
    found = accounts.read(url, "SELECT day, requests, latency_3 FROM audit_usageslice WHERE days = 7 ORDER BY day")
    assert found == [(date(2026, 2, 23), 1, None), (date(2026, 3, 2), 110, None), (date(2026, 3, 9), 1000, None)]


_SLICE_OF_A_DAY = """
INSERT INTO audit_usageslice (id, organization_id, day, requests, dimension, key, name, tokens_input, tokens_output,
    cost_nano_usd, blocked, errors) VALUES (%s, %s, %s, %s, 'model', 'a', '', 0, 0, 0, 0, 0)
"""
