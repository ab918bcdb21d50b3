"""Money never overshoots: the counters under concurrency, and what each settlement leaves."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction

from apps.gateway.group_store import Sheet, group_store
from apps.policies.budgets import Budgets, Claim, OverBudget, Reserved, Settlement, place_of, window
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Mode, Policy
from apps.policies.models import Budget, LedgerEntry, Reservation
from apps.policies.prices import WorstCase

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def cap(
    limit: int, *, per: Per = Per.TOTAL, hard: bool = True, fit: Fit = Fit.REFUSE, mode: Mode = Mode.ENFORCE
) -> tuple[Policy, CostCap]:
    rule = CostCap(limit, per, hard, fit)
    organization = uuid4()
    return Policy(uuid4(), 1, "Cap", "cost_cap", mode, Level.ORGANIZATION, organization, organization, rule), rule


def claim(*caps: tuple[Policy, CostCap], worst: int, output_tokens: int = 0, output_rate: int = 0) -> Claim:
    return Claim(uuid4(), uuid4(), caps, WorstCase(worst * 1_000_000, output_rate, output_tokens))


def reserve(wanted: Claim, now: datetime = NOW) -> Reserved | OverBudget:
    with transaction.atomic():
        store = group_store(connection)
        budgets = Budgets(now, ())
        budgets.load(store.lock(budgets.wanted([wanted])))
        if missing := budgets.missing([wanted]):
            store.create(missing)
            budgets.load(store.lock([budget.id for budget in missing]))
        result = budgets.reserve(wanted)
        store.write(Sheet(reservations=budgets.reservations, counters=budgets.changed()))
    return result


def settle(request: UUID, nano_usd: int, now: datetime = NOW) -> int:
    with transaction.atomic():
        store = group_store(connection)
        rows = Reservation.objects.filter(request_id=request)
        budgets = Budgets(now, rows.values_list("request_id", "budget_id", "amount_nano_usd"))
        rows.delete()
        budgets.load(store.lock(budgets.wanted([])))
        overrun = budgets.settle(Settlement(request, nano_usd))
        store.write(Sheet(ledger=budgets.ledger, counters=budgets.changed()))
    return overrun


def counter(capped: tuple[Policy, CostCap], now: datetime = NOW) -> Budget:
    return Budget.objects.get(id=place_of(*capped, now).budget)


def test_a_request_that_fits_is_reserved_and_the_next_that_does_not_is_refused() -> None:
    total = cap(100)
    assert isinstance(reserve(claim(total, worst=60)), Reserved)
    refused = reserve(claim(total, worst=60))
    assert isinstance(refused, OverBudget)
    assert refused.left_nano_usd == 40
    assert counter(total).reserved_nano_usd == 60


def test_a_request_that_fits_exactly_is_admitted() -> None:
    total = cap(100)
    assert isinstance(reserve(claim(total, worst=100)), Reserved)
    assert isinstance(reserve(claim(total, worst=1)), OverBudget)


def test_settling_frees_what_was_not_used() -> None:
    total = cap(100)
    first = claim(total, worst=100)
    reserve(first)
    settle(first.request_id, 30)
    row = counter(total)
    assert (row.reserved_nano_usd, row.spent_nano_usd) == (0, 30)
    assert isinstance(reserve(claim(total, worst=70)), Reserved)


def test_a_request_refused_by_one_cap_reserves_at_none() -> None:
    wide, narrow = cap(1000), cap(10)
    assert isinstance(reserve(claim(wide, narrow, worst=50)), OverBudget)
    assert counter(wide).reserved_nano_usd == 0


def test_settling_twice_posts_once() -> None:
    total = cap(100)
    first = claim(total, worst=50)
    reserve(first)
    settle(first.request_id, 20)
    settle(first.request_id, 20)
    assert counter(total).spent_nano_usd == 20
    assert LedgerEntry.objects.filter(request_id=first.request_id).count() == 1


def test_what_runs_over_its_reservation_is_posted_and_shown() -> None:
    total = cap(100)
    first = claim(total, worst=50)
    reserve(first)
    assert settle(first.request_id, 80) == 30
    row = counter(total)
    assert (row.spent_nano_usd, row.overrun_nano_usd) == (80, 30)
    assert LedgerEntry.objects.get(request_id=first.request_id).overrun_nano_usd == 30


def test_a_soft_cap_counts_and_never_refuses() -> None:
    total = cap(10, hard=False)
    first = claim(total, worst=50)
    assert isinstance(reserve(first), Reserved)
    settle(first.request_id, 50)
    assert counter(total).spent_nano_usd == 50


def test_a_hard_cap_in_shadow_counts_and_never_refuses() -> None:
    total = cap(10, mode=Mode.SHADOW)
    assert isinstance(reserve(claim(total, worst=50)), Reserved)


def test_a_clamping_cap_lowers_the_output_to_what_is_left() -> None:
    total = cap(100, fit=Fit.CLAMP)
    wanted = claim(total, worst=40, output_tokens=100, output_rate=1_000_000)
    result = reserve(wanted)
    assert isinstance(result, Reserved)
    assert (result.output_tokens, result.nano_usd) == (60, 100)


def test_a_clamping_cap_that_does_not_reach_for_one_token_refuses() -> None:
    total = cap(40, fit=Fit.CLAMP)
    assert isinstance(reserve(claim(total, worst=40, output_tokens=100, output_rate=1_000_000)), OverBudget)


def test_a_clamp_leaves_a_token_for_each_choice_or_refuses() -> None:
    def ask(limit: int) -> Reserved | OverBudget:
        worst = WorstCase(40_000_000, 1_000_000, 100, least_output=5)
        return reserve(Claim(uuid4(), uuid4(), (cap(limit, fit=Fit.CLAMP),), worst))

    assert isinstance(ask(44), OverBudget)
    fits = ask(45)
    assert isinstance(fits, Reserved)
    assert fits.output_tokens == 5


def test_a_clamp_to_fit_one_cap_does_not_slip_past_another_that_refuses() -> None:
    clamping, refusing = cap(100, fit=Fit.CLAMP), cap(50)
    wanted = claim(clamping, refusing, worst=40, output_tokens=100, output_rate=1_000_000)
    assert isinstance(reserve(wanted), OverBudget)
    assert counter(clamping).reserved_nano_usd == 0


def test_a_new_window_starts_a_new_count_and_the_old_reservation_settles_in_the_old_one() -> None:
    daily = cap(100, per=Per.DAY)
    first = claim(daily, worst=100)
    reserve(first)
    tomorrow = NOW + timedelta(days=1)
    assert isinstance(reserve(claim(daily, worst=100), tomorrow), Reserved)
    settle(first.request_id, 90, tomorrow)
    assert counter(daily).spent_nano_usd == 90
    assert counter(daily, tomorrow).spent_nano_usd == 0


@pytest.mark.parametrize(
    ("per", "moment", "start", "end"),
    [
        (Per.DAY, "2026-03-29T23:59:59", "2026-03-29", "2026-03-30"),
        (Per.WEEK, "2026-03-01T00:00:00", "2026-02-23", "2026-03-02"),
        (Per.WEEK, "2026-03-02T00:00:00", "2026-03-02", "2026-03-09"),
        (Per.MONTH, "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        (Per.MONTH, "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_windows_begin_and_end_in_utc(per: Per, moment: str, start: str, end: str) -> None:
    found = window(per, datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert found == tuple(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (start, end))


def test_a_cap_in_all_has_one_window_for_ever() -> None:
    assert window(Per.TOTAL, NOW) == window(Per.TOTAL, NOW + timedelta(days=5000))


def test_of_many_at_once_over_five_nested_caps_exactly_as_many_as_fit_are_admitted(postgres_only: None) -> None:
    caps = [cap(37_000), *(cap(10**9) for _ in range(4))]
    admitted = at_once(60, lambda: isinstance(reserve(claim(*caps, worst=1000)), Reserved))
    assert sum(admitted) == 37
    assert counter(caps[0]).reserved_nano_usd == 37_000


def at_once(count: int, work: Callable[[], bool]) -> list[bool]:
    gate = threading.Barrier(12)

    def in_a_thread(number: int) -> bool:
        if number < 12:
            gate.wait(10)
        return work()

    try:
        with ThreadPoolExecutor(12, initializer=lambda: None) as pool:
            return list(pool.map(in_a_thread, range(count)))
    finally:
        connection.close()
