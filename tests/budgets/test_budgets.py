"""Money never overshoots: the counters under concurrency, and what each settlement leaves."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction

from apps.gateway.group_store import Sheet, group_store
from apps.policies.budgets import Budgets, Claim, Held, OverBudget, Reserved, Settlement, place_of, window
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Mode, Policy
from apps.policies.models import Budget, LedgerEntry, Reservation
from apps.policies.prices import WorstCase

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def cap(
    limit: int,
    *,
    per: Per = Per.TOTAL,
    hard: bool = True,
    fit: Fit = Fit.REFUSE,
    mode: Mode = Mode.ENFORCE,
    **terms: Any,
) -> tuple[Policy, CostCap]:
    rule = CostCap(limit, per, hard, fit, **terms)
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
        budgets.load_parts(store.parts(budgets.rolling([wanted])))
        result = budgets.reserve(wanted)
        store.write(_sheet(budgets))
    return result


def _sheet(budgets: Budgets) -> Sheet:
    return Sheet(
        reservations=budgets.reservations,
        ledger=budgets.ledger,
        alerts=budgets.alerts,
        counters=budgets.changed(),
        parts=budgets.changed_parts(),
        expired_parts=budgets.expired_parts(),
    )


def _held(rows) -> list[Held]:
    return [Held(*row) for row in rows.values_list("request_id", "budget_id", "amount_nano_usd", "part_start")]


def settle(request: UUID, nano_usd: int, now: datetime = NOW) -> int:
    with transaction.atomic():
        store = group_store(connection)
        rows = Reservation.objects.filter(request_id=request)
        budgets = Budgets(now, _held(rows))
        rows.delete()
        budgets.load(store.lock(budgets.wanted([])))
        budgets.load_parts(store.parts(budgets.rolling([])))
        overrun = budgets.settle(Settlement(request, nano_usd))
        store.write(_sheet(budgets))
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


def spend(capped: tuple[Policy, CostCap], nano_usd: int, now: datetime) -> bool:
    wanted = claim(capped, worst=nano_usd)
    admitted = isinstance(reserve(wanted, now), Reserved)
    settle(wanted.request_id, nano_usd, now)
    return admitted


def test_a_rolling_cap_frees_money_once_the_part_of_the_span_it_was_spent_in_has_left_it() -> None:
    daily = cap(100, per=Per.ROLLING, span_hours=24)
    part = timedelta(hours=24) / 60
    assert spend(daily, 60, NOW)
    assert spend(daily, 40, NOW + timedelta(hours=12))
    assert not spend(daily, 1, NOW + timedelta(hours=24))
    assert spend(daily, 60, NOW + timedelta(hours=24) + part)
    assert not spend(daily, 1, NOW + timedelta(hours=24) + part)


def test_a_rolling_cap_says_when_its_first_money_comes_back() -> None:
    hourly = cap(100, per=Per.ROLLING, span_hours=1)
    spend(hourly, 100, NOW)
    refused = reserve(claim(hourly, worst=1), NOW + timedelta(minutes=30))
    assert isinstance(refused, OverBudget)
    assert refused.resets_at == NOW + timedelta(minutes=61)


def test_a_transaction_that_began_earlier_sees_what_a_later_one_reserved_in_a_later_part() -> None:
    hourly = cap(100, per=Per.ROLLING, span_hours=1)
    assert isinstance(reserve(claim(hourly, worst=100), NOW + timedelta(minutes=1)), Reserved)
    assert isinstance(reserve(claim(hourly, worst=1), NOW), OverBudget)


def test_a_call_under_a_rolling_cap_settles_in_the_part_it_was_reserved_in() -> None:
    hourly = cap(100, per=Per.ROLLING, span_hours=1)
    first = claim(hourly, worst=80)
    reserve(first)
    settle(first.request_id, 30, NOW + timedelta(minutes=50))
    assert isinstance(reserve(claim(hourly, worst=71), NOW + timedelta(minutes=60)), OverBudget)
    assert isinstance(reserve(claim(hourly, worst=100), NOW + timedelta(minutes=61)), Reserved)


def test_parts_that_no_span_reaches_any_more_are_forgotten_and_their_money_is_still_in_the_ledger() -> None:
    hourly = cap(10**6, per=Per.ROLLING, span_hours=1)
    for hour in range(6):
        spend(hourly, 5, NOW + timedelta(hours=hour))
    row = counter(hourly)
    assert row.parts.count() <= 3
    assert row.spent_nano_usd == 30


def test_of_many_at_once_under_a_rolling_cap_exactly_as_many_as_fit_are_admitted(postgres_only: None) -> None:
    hourly = cap(37_000, per=Per.ROLLING, span_hours=1)
    assert sum(at_once(60, lambda: isinstance(reserve(claim(hourly, worst=1000)), Reserved))) == 37


def test_crossing_a_percent_of_the_limit_is_recorded_once_in_a_window() -> None:
    daily = cap(100, per=Per.DAY, hard=False, alert_at=(50, 80, 100))
    for nano_usd in (49, 1, 10, 60, 10):
        spend(daily, nano_usd, NOW)
    alerts = list(counter(daily).alerts.order_by("percent").values_list("percent", "spent_nano_usd"))
    assert alerts == [(50, 50), (80, 120), (100, 120)]
    spend(daily, 50, NOW + timedelta(days=1))
    assert counter(daily, NOW + timedelta(days=1)).alerts.get().percent == 50


def test_a_lowered_limit_records_what_is_crossed_with_the_next_request_and_only_once() -> None:
    policy, rule = cap(100, hard=False, alert_at=(50,))
    spend((policy, rule), 30, NOW)
    for _ in range(2):
        spend((policy, replace(rule, limit_nano_usd=60)), 1, NOW)
    assert counter((policy, rule)).alerts.get().spent_nano_usd == 30


def test_under_a_rolling_cap_only_what_the_span_holds_crosses_a_percent() -> None:
    hourly = cap(100, per=Per.ROLLING, span_hours=1, hard=False, alert_at=(50,))
    spend(hourly, 40, NOW)
    spend(hourly, 40, NOW + timedelta(hours=2))
    assert not counter(hourly).alerts.exists()
    spend(hourly, 10, NOW + timedelta(hours=2))
    assert counter(hourly).alerts.get().spent_nano_usd == 50
