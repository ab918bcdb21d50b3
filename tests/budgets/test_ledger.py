"""`manage.py verify_ledger`: what adds up is proved, and whatever was tampered with is named."""

import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from apps.audit.models import OpenRequest
from apps.policies.models import Budget, LedgerEntry, Reservation
from tests.gateway.house import House, chat, pipeline, run
from tests.services.server import ROOT

COST = 50_000
"""What a request of `spend` costs in nano-USD: 10 tokens of input for 1 USD a million, 20 of output for 2."""


def spend(house: House, folder: Path, requests: int = 3) -> None:
    async def work() -> None:
        async with pipeline(folder) as built:
            for _ in range(requests):
                answer = await built.complete_chat(chat(house.key, "sim-usage-10-20", max_tokens=20))
                assert answer.status == 200

    run(work)


@pytest.fixture
def house(tmp_path: Path) -> House:
    built = House([("cost_cap", {"limit_usd": "1", "per": "month"}), ("cost_cap", {"limit_usd": "2", "per": "day"})])
    spend(built, tmp_path)
    return built


def verified(house: House) -> tuple[bool, str]:
    said = io.StringIO()
    try:
        call_command("verify_ledger", organization=house.organization.id, stdout=said, stderr=said)
    except CommandError as error:
        return False, said.getvalue() + str(error)
    return True, said.getvalue()


def budgets(house: House):
    return Budget.objects.filter(organization_id=house.organization.id)


def named(house: House, *expected: str) -> None:
    adds_up, said = verified(house)
    assert not adds_up
    for text in expected:
        assert text in said


def test_what_was_spent_through_the_gateway_adds_up(house: House) -> None:
    assert verified(house) == (
        True,
        "The money adds up: 2 budgets, 6 ledger entries, 0 reservations, 3 records with a cost.\n",
    )


def test_a_counter_that_its_ledger_does_not_sum_up_to_is_named_with_both_amounts(house: House) -> None:
    budget = budgets(house).first()
    assert budget
    budgets(house).filter(id=budget.id).update(spent_nano_usd=F("spent_nano_usd") + 1)
    named(house, f"Budget {budget.id} of policy {budget.policy_id} (cost_cap policy)", "0.000150001 USD", "0.00015 USD")


def test_an_overrun_that_no_entry_shows_is_named(house: House) -> None:
    budgets(house).update(overrun_nano_usd=7)
    named(house, "0.000000007 USD is overrun", "overruns sum up to 0.00 USD")


def test_a_reserved_sum_without_its_reservation_is_named(house: House) -> None:
    budgets(house).update(reserved_nano_usd=COST)
    named(house, "0.00005 USD is reserved, but its reservations sum up to 0.00 USD")


def test_a_reservation_without_an_open_request_is_named(house: House) -> None:
    budget, request = budgets(house).first(), uuid4()
    assert budget
    Reservation.objects.create(request_id=request, budget=budget, amount_nano_usd=COST)
    budgets(house).filter(id=budget.id).update(reserved_nano_usd=COST)
    named(house, f"0.00005 USD is reserved for request {request}, which is not open")
    open_request(house, request)
    assert verified(house)[0]


def open_request(house: House, request: UUID) -> None:
    OpenRequest.objects.create(
        id=request,
        organization_id=house.organization.id,
        deadline=timezone.now() + timedelta(hours=1),
        worst_case_nano_usd=COST,
        intent={},
    )


def test_an_entry_without_a_record_is_named(house: House) -> None:
    budget, request = budgets(house).first(), uuid4()
    assert budget
    post(budget, request, COST)
    named(house, f"an entry of 0.00005 USD is for request {request}, which has no record")


def test_an_entry_of_another_amount_than_its_records_cost_is_named(house: House) -> None:
    other = House([])
    budget = budgets(house).first()
    assert budget
    record = house.records()[0]
    extra = Budget.objects.create(
        id=uuid4(),
        policy_id=uuid4(),
        organization_id=house.organization.id,
        window_start=timezone.now(),
        limit_nano_usd=1,
    )
    post(extra, record.id, COST - 1)
    named(house, f"an entry of 0.000049999 USD is for request {record.id}, whose record says that it cost 0.00005 USD")
    assert verified(other)[0]


def test_a_record_with_a_cost_that_no_entry_posts_is_named(house: House, tmp_path: Path) -> None:
    policy = uuid4()
    record = house.records()[0]
    record.pk = uuid4()
    record.limits = [{"kind": "cost_cap", "policy_id": str(policy)}]
    record.save(force_insert=True)
    named(house, f"Request {record.pk} cost 0.00005 USD under the cost cap {policy}")


def test_differences_beyond_a_hundred_of_one_kind_are_not_all_named(house: House) -> None:
    Budget.objects.bulk_create(
        Budget(
            id=uuid4(),
            policy_id=uuid4(),
            organization_id=house.organization.id,
            window_start=timezone.now(),
            limit_nano_usd=1,
            spent_nano_usd=5,
        )
        for _ in range(102)
    )
    named(house, "There are more of this kind.", "101 differences")


def another_budget(house: House) -> Budget:
    return Budget.objects.create(
        id=uuid4(),
        policy_id=uuid4(),
        organization_id=house.organization.id,
        window_start=timezone.now(),
        limit_nano_usd=1,
    )


def test_on_sqlite_the_command_ends_with_0_where_all_adds_up_and_with_1_where_it_does_not(tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3", "DATA_DIR": str(tmp_path)}

    def manage(*command: str) -> "subprocess.CompletedProcess[str]":
        arguments = [sys.executable, "manage.py", *command]
        return subprocess.run(
            arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    manage("migrate")
    proved = manage("verify_ledger")
    assert (proved.returncode, proved.stdout.partition(":")[0]) == (0, "The money adds up")
    budget = uuid4()
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as tampered, tampered:
        tampered.execute(
            "INSERT INTO policies_budget (id, policy_id, window_start, limit_nano_usd, reserved_nano_usd,"
            " spent_nano_usd, overrun_nano_usd) VALUES (?, ?, '2026-03-01 00:00:00', 10, 0, 5, 0)",
            [budget.hex, uuid4().hex],
        )
        add_costly_record(tampered)
    refuted = manage("verify_ledger")
    assert refuted.returncode == 1
    assert f"Budget {budget}" in refuted.stderr
    assert "from 2026-03-01: 0.000000005 USD is spent" in refuted.stderr
    assert "cost 0.000000009 USD under the cost cap" in refuted.stderr


def add_costly_record(database: sqlite3.Connection) -> None:
    """Add a record that names a cap and has no ledger entry, whatever else its columns hold."""
    kinds = {row[1]: row[2] for row in database.execute("PRAGMA table_info(audit_requestrecord)")}
    values = {name: 0 if "int" in kind else "[]" for name, kind in kinds.items()}
    values |= {
        "id": uuid4().hex,
        "cost_nano_usd": 9,
        "limits": json.dumps([{"kind": "cost_cap", "policy_id": str(uuid4())}]),
    }
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO audit_requestrecord ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def post(budget: Budget, request: UUID, amount: int) -> None:
    LedgerEntry.objects.create(
        timestamp=timezone.now(),
        budget=budget,
        organization_id=budget.organization_id,
        request_id=request,
        amount_nano_usd=amount,
    )
    Budget.objects.filter(id=budget.id).update(spent_nano_usd=F("spent_nano_usd") + amount)
