"""Transactions that meet at the same counters: they never wait in a circle of the journal's making, and what PostgreSQL
ends for another one's sake is written again.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import Error, connection, connections, transaction

from apps.audit import writer
from apps.audit.journal import Journal, Steps
from apps.audit.models import RequestRecord
from apps.audit.spool import Spool
from apps.audit.uuid7 import uuid7
from apps.gateway.bookkeeping import STEPS, Closing, Intent, write_free, write_group
from apps.orgs.versions import read_versions
from apps.policies.budgets import Budgets, Claim, Reserved
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Mode, Policy
from apps.policies.models import Budget, LedgerEntry
from apps.policies.prices import WorstCase
from tests.gateway.house import House, chat, pipeline, run
from tests.services.postgres import with_name

CAP = {"limit_usd": "1", "per": "total"}
MEMBERS = 12

pytestmark = pytest.mark.usefixtures("postgres_only")


@contextmanager
def other() -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else's, in which a deadlock is never found: the journal's own is ended for it."""
    url = with_name(os.environ["DATABASE_URL"], str(connection.settings_dict["NAME"]))
    with psycopg.connect(url.replace("postgres://", "postgresql://", 1)) as opened:
        opened.execute("SET deadlock_timeout = '1min'")
        yield opened
        opened.commit()


def lock(session: psycopg.Connection[Any], *budgets: UUID) -> None:
    for budget in budgets:
        session.execute("SELECT id FROM policies_budget WHERE id = %s FOR UPDATE", [budget])


def until_somebody_waits_for(session: psycopg.Connection[Any]) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    until(lambda: bool(_scalar(statement, session.info.backend_pid)))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def _scalar(statement: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()[0]


# --- counters of windows that begin


def a_cap(organization: UUID) -> tuple[Policy, CostCap]:
    rule = CostCap(1000, Per.TOTAL, hard=True, fit=Fit.REFUSE)
    return Policy(
        uuid4(), 1, "Cap", "cost_cap", Mode.ENFORCE, Level.ORGANIZATION, organization, organization, rule
    ), rule


def an_intent(house: House, *caps: tuple[Policy, CostCap]) -> Intent:
    organization, request = house.organization.id, uuid7()
    versions = read_versions(connection, [organization])[organization]
    now = datetime.now(UTC)
    row = {
        "id": request,
        "organization_id": organization,
        "deadline": now,
        "worst_case_nano_usd": 1,
        "intent": {"timestamp": now, "limits": []},
    }
    return Intent(organization, versions, Claim(request, organization, caps, WorstCase(10**6, 0, 0)), row)


def write(run: Callable[..., list[Any]], members: Sequence[Any]) -> list[Any]:
    with transaction.atomic():
        return run(connection, members)


@pytest.mark.parametrize("run", [write_group, write_free])
def test_whoever_creates_a_counter_holds_no_other_one_while_it_waits(run: Callable[..., list[Any]]) -> None:
    house = House()
    old, new = a_cap(house.organization.id), a_cap(house.organization.id)
    assert isinstance(write(write_group, [an_intent(house, old)])[0], Reserved)
    (existing,) = Budget.objects.filter(policy_id=old[0].id)
    member = an_intent(house, old, new)
    (begins,) = [b for b in Budgets(datetime.now(UTC), ()).missing([member.claim]) if b.id != existing.id]
    results: list[Any] = []
    with other() as session:
        columns = {field.column: getattr(begins, field.attname) for field in Budget._meta.concrete_fields}
        marks = ", ".join(["%s"] * len(columns))
        session.execute(f"INSERT INTO policies_budget ({', '.join(columns)}) VALUES ({marks})", list(columns.values()))
        waiting = threading.Thread(target=in_thread, args=(lambda: results.extend(write(run, [member])),))
        waiting.start()
        until_somebody_waits_for(session)
        session.execute("SET lock_timeout = '2s'")
        lock(session, existing.id)  # which whoever waits must not hold
    waiting.join()
    assert [type(result) for result in results] == [Reserved]


def in_thread(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connections.close_all()


def a_record(house: House, request: UUID, cost: int) -> dict[str, Any]:
    record = RequestRecord(
        id=request,
        timestamp=datetime.now(UTC),
        organization_id=house.organization.id,
        status="success",
        http_status=200,
        cost_nano_usd=cost,
    )
    return {field.attname: getattr(record, field.attname) for field in RequestRecord._meta.concrete_fields}


# --- what PostgreSQL ends is written again


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the journal wait long enough for a lock that PostgreSQL looks for a deadlock."""
    monkeypatch.setattr(writer, "LOCK_TIMEOUT_MS", 10_000)


@pytest.fixture
def strict() -> Iterator[str]:
    """The name of connections on which a transaction fails if what it saw first was changed meanwhile."""
    options = {**connection.settings_dict["OPTIONS"], "options": "-c default_transaction_isolation=repeatable\\ read"}
    connections.databases["strict"] = {**connection.settings_dict, "OPTIONS": options}
    yield "strict"
    del connections.databases["strict"]


def noting(states: list[str]) -> Steps:
    """The gateway's own steps, noting with which state PostgreSQL ended a group."""

    def noted(connection: Any, members: Sequence[Any]) -> list[Any]:
        try:
            return write_group(connection, members)
        except Error as error:
            states.append(error.__cause__.sqlstate)  # type: ignore[union-attr]
            raise

    return replace(STEPS, run=noted)


def while_met(house: House, folder: Path, using: str, meet: Callable[[list[UUID]], Any]) -> tuple[list[str], list[int]]:
    """Ask a few times at once while ``meet`` does something on another connection; return what PostgreSQL ended."""
    states: list[str] = []

    async def calls() -> list[int]:
        journal = Journal(noting(states), Spool(folder), wait_seconds=20, using=using)
        async with pipeline(folder, journal=journal) as path:
            assert (await path.complete_chat(chat(house.key))).status == 200  # so that the counters are there
            budgets = await asyncio.to_thread(lambda: sorted(b.id for b in _budgets(house)))
            met = asyncio.ensure_future(asyncio.to_thread(meet, budgets))
            await asyncio.to_thread(_held.wait)
            asked = [path.complete_chat(chat(house.key, "sim-usage-10-20")) for _ in range(MEMBERS)]
            statuses = [answer.status for answer in await asyncio.gather(*asked)]
            await met
            return statuses

    return states, run(calls)


_held = threading.Event()


def _budgets(house: House) -> list[Budget]:
    return list(Budget.objects.filter(organization_id=house.organization.id))


def assert_each_member_was_written_once(house: House) -> None:
    records = house.records()
    assert [record.status for record in records] == ["success"] * (MEMBERS + 1)
    for budget in _budgets(house):
        entries = LedgerEntry.objects.filter(budget=budget)
        assert {e.request_id: e.amount_nano_usd for e in entries} == {r.id: r.cost_nano_usd for r in records}
        assert len(entries) == len(records)
        assert budget.spent_nano_usd == sum(record.cost_nano_usd for record in records)
        assert budget.reserved_nano_usd == 0
    assert house.open_requests() == 0


def test_a_group_that_loses_a_deadlock_is_written_again_each_member_once(tmp_path: Path, patient: None) -> None:
    house = House([("cost_cap", CAP), ("cost_cap", CAP)])

    def lock_the_other_way_round(budgets: list[UUID]) -> None:
        with other() as session:
            lock(session, budgets[1])
            _held.set()
            until_somebody_waits_for(session)
            lock(session, budgets[0])  # which is the journal's, until it is ended
        connections.close_all()

    _held.clear()
    states, statuses = while_met(house, tmp_path, "default", lock_the_other_way_round)
    assert states == ["40P01"]
    assert statuses == [200] * MEMBERS
    assert_each_member_was_written_once(house)


def test_a_group_that_cannot_be_serialized_is_written_again_each_member_once(
    tmp_path: Path, patient: None, strict: str
) -> None:
    house = House([("cost_cap", CAP)])

    def change(budgets: list[UUID]) -> None:
        with other() as session:
            session.execute("UPDATE policies_budget SET alert_at = NULL WHERE id = %s", [budgets[0]])
            _held.set()
            until_somebody_waits_for(session)
        connections.close_all()

    _held.clear()
    states, statuses = while_met(house, tmp_path, strict, change)
    assert states == ["40001"]
    assert statuses == [200] * MEMBERS
    assert_each_member_was_written_once(house)


def test_an_end_that_is_written_twice_counts_once() -> None:
    house = House()
    cap = a_cap(house.organization.id)
    intent = an_intent(house, cap)
    (reserved,) = write(write_group, [intent])
    assert isinstance(reserved, Reserved)
    end = Closing(a_record(house, intent.claim.request_id, cost=7), None)
    assert write(write_group, [end, end]) == [6, 6]
    assert write(write_group, [end]) == [None]
    assert RequestRecord.objects.filter(id=intent.claim.request_id).count() == 1
    (entry,) = LedgerEntry.objects.filter(request_id=intent.claim.request_id)
    budget = Budget.objects.get(policy_id=cap[0].id)
    assert (entry.amount_nano_usd, budget.spent_nano_usd, budget.reserved_nano_usd) == (7, 7, 0)
