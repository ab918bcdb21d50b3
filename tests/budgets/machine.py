"""A state machine that drives the money through the journal's own steps, and looks at it after each one."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.audit.models import OpenRequest, RequestRecord, Status
from apps.audit.uuid7 import uuid7
from apps.gateway.bookkeeping import Closing, Intent, Member, write_members
from apps.gateway.group_store import Situation, group_store
from apps.gateway.sweeper import sweep
from apps.orgs.versions import read_versions
from apps.policies.budgets import BEGINNING, Claim, OverBudget, Reserved, place_of
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Mode, Policy
from apps.policies.ledger import prove
from apps.policies.models import Budget, LedgerEntry, Reservation
from apps.policies.prices import WorstCase

MILLION = 1_000_000
MOST = 400
AMOUNTS = st.integers(0, MOST // 4)


class MovedClock:
    """The journal's statements, with a database whose clock stands where the test says."""

    def __init__(self, now: datetime) -> None:
        self._store = group_store(connection)
        self._now = now

    def begin(self, *asked: Any) -> Situation:
        return replace(self._store.begin(*asked), now=self._now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass
class Cap:
    rule: CostCap
    id: UUID = field(default_factory=uuid4)
    most: int = 0
    """The highest limit it ever had."""

    def policy(self, organization: UUID) -> Policy:
        return Policy(
            self.id, 1, "Cap", "cost_cap", Mode.ENFORCE, Level.ORGANIZATION, organization, organization, self.rule
        )

    def change(self, **terms: Any) -> None:
        self.rule = replace(self.rule, **terms)
        self.most = max(self.most, self.rule.limit_nano_usd)


class MoneyMachine(RuleBasedStateMachine):
    """Requests that reserve, settle, run over, leave, die and are posted twice, while caps and the time change."""

    @initialize(limits=st.lists(st.integers(0, MOST), min_size=3, max_size=3))
    def begin(self, limits: list[int]) -> None:
        self.organization = uuid4()
        self.now = datetime(2026, 3, 4, 12, tzinfo=UTC)
        self.caps = [
            Cap(CostCap(limits[0], Per.TOTAL, hard=True, fit=Fit.REFUSE), most=limits[0]),
            Cap(CostCap(limits[1], Per.DAY, hard=True, fit=Fit.CLAMP), most=limits[1]),
            Cap(CostCap(limits[2], Per.WEEK, hard=False, fit=Fit.REFUSE), most=limits[2]),
        ]
        self.under_way: dict[UUID, int] = {}
        self.closed: dict[UUID, int] = {}
        self.admitted: list[tuple[UUID, int | None, datetime, UUID]] = []

    # --- What happens to requests

    @rule(worst=AMOUNTS, tokens=AMOUNTS, caps=st.sets(st.integers(0, 2), min_size=1))
    def reserve(self, worst: int, tokens: int, caps: set[int]) -> None:
        self._post([self._intent(worst, tokens, caps)])

    @rule(cap=st.integers(0, 2), beyond=st.integers(-1, 1))
    def reserve_about_all_that_is_left(self, cap: int, beyond: int) -> None:
        left = self._left(self.caps[cap])
        self._post([self._intent(max(0, left + beyond), 0, {cap})])

    @rule(asked=st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=2, max_size=5), settled=st.booleans())
    def reserve_many_in_one_group_that_settles_too(self, asked: list[tuple[int, int]], settled: bool) -> None:
        closings = [self._closing(request, reserved) for request, reserved in self.under_way.items()] if settled else []
        self._post([*(self._intent(worst, tokens, {0, 1, 2}) for worst, tokens in asked), *closings])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(list(self.under_way)))
        self._post([self._closing(request, data.draw(st.integers(0, self.under_way[request])))])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), over=st.integers(1, 50))
    def run_over(self, data: st.DataObject, over: int) -> None:
        request = data.draw(st.sampled_from(list(self.under_way)))
        reserved = self.under_way[request]
        (overrun,) = self._post([self._closing(request, reserved + over)])
        assert overrun == over

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self._post([self._closing(data.draw(st.sampled_from(list(self.under_way))), 0)])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def settle_twice_in_one_group(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(list(self.under_way)))
        self._post([self._closing(request, self.under_way[request])] * 2)

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), again=AMOUNTS)
    def settle_again(self, data: st.DataObject, again: int) -> None:
        request = data.draw(st.sampled_from(list(self.closed)))
        assert self._written([self._closing(request, again)]) == [None]

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def die_and_be_swept(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(list(self.under_way)))
        OpenRequest.objects.filter(id=request).update(deadline=timezone.now() - timedelta(minutes=1))
        sweep()
        assert not OpenRequest.objects.filter(id=request).exists()
        self.closed[request] = self.under_way.pop(request)

    @rule(worst=AMOUNTS)
    def fail_in_the_middle(self, worst: int) -> None:
        with transaction.atomic():
            write_members(MovedClock(self.now), [self._intent(worst, 0, {0, 1, 2})])
            transaction.set_rollback(True)

    # --- What changes around them

    @rule(cap=st.integers(0, 2), limit=st.integers(0, MOST))
    def change_a_limit(self, cap: int, limit: int) -> None:
        self.caps[cap].change(limit_nano_usd=limit)

    @rule(cap=st.integers(0, 2), per=st.sampled_from(Per))
    def change_a_window(self, cap: int, per: Per) -> None:
        self.caps[cap].change(per=per, span_hours=24 if per is Per.ROLLING else None)

    @rule(hours=st.sampled_from([0.2, 0.4, 1, 11, 13, 24, 24 * 7, 24 * 31]))
    def let_time_pass(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    # --- What always holds

    @invariant()
    def counters_equal_their_ledger_and_their_reservations(self) -> None:
        for budget in self._budgets():
            posted = LedgerEntry.objects.filter(budget=budget).aggregate(sum=Sum("amount_nano_usd", default=0))["sum"]
            held = Reservation.objects.filter(budget=budget).aggregate(sum=Sum("amount_nano_usd", default=0))["sum"]
            assert (budget.spent_nano_usd, budget.reserved_nano_usd) == (posted, held)

    @invariant()
    def a_hard_cap_is_exceeded_by_recorded_overruns_alone(self) -> None:
        most = {cap.id: cap.most for cap in self.caps if cap.rule.hard}
        for budget in self._budgets():
            if budget.span_hours is not None:
                continue  # sums up for ever; `_check_decision` looks at the span
            used = budget.spent_nano_usd + budget.reserved_nano_usd - budget.overrun_nano_usd
            assert used <= most.get(budget.policy_id, used)

    def teardown(self) -> None:
        if not hasattr(self, "organization"):
            return
        assert prove(self.organization).differences == []
        records = RequestRecord.objects.filter(organization_id=self.organization)
        assert dict(records.values_list("id", "cost_nano_usd")) == self.closed
        assert OpenRequest.objects.filter(organization_id=self.organization).count() == len(self.under_way)
        OpenRequest.objects.filter(organization_id=self.organization).update(
            deadline=timezone.now() - timedelta(minutes=1)
        )
        sweep()
        assert not Reservation.objects.filter(budget__organization_id=self.organization).exists()

    # --- How it is done

    def _budgets(self) -> list[Budget]:
        return list(Budget.objects.filter(organization_id=self.organization)) if hasattr(self, "organization") else []

    def _counter(self, cap: Cap) -> Budget | None:
        place = place_of(cap.policy(self.organization), cap.rule, self.now)
        return Budget.objects.filter(id=place.budget).first()

    def _left(self, cap: Cap) -> int:
        if cap.rule.span_hours is None:
            return cap.rule.limit_nano_usd - _used(self._counter(cap))
        # The oldest part of the span counts as a whole: its length is a sixtieth of the span.
        return cap.rule.limit_nano_usd - self._used_since(
            cap, self.now - timedelta(hours=24), parts=timedelta(hours=0.4)
        )

    def _used_since(self, cap: Cap, since: datetime, parts: timedelta | None = None) -> int:
        used = {**self.under_way, **self.closed}
        return sum(
            used[request]
            for policy, hours, at, request in self.admitted
            if (policy, hours) == (cap.id, cap.rule.span_hours)
            and (at > since if parts is None else at - (at - BEGINNING) % parts + parts > since)
        )

    def _intent(self, worst: int, tokens: int, caps: set[int]) -> Intent:
        request = uuid7()
        claimed = tuple((self.caps[i].policy(self.organization), self.caps[i].rule) for i in sorted(caps))
        claim = Claim(request, self.organization, claimed, WorstCase(worst * MILLION, MILLION, tokens))
        row = {
            "id": request,
            "organization_id": self.organization,
            # The journal counts it from the moved clock, and the sweeper goes by the real one.
            "deadline": timezone.now() + (timezone.now() - self.now) + timedelta(hours=1),
            "worst_case_nano_usd": worst + tokens,
            "intent": self._record(request, Status.INTERRUPTED, 0),
        }
        return Intent(self.organization, read_versions(connection, [self.organization])[self.organization], claim, row)

    def _closing(self, request: UUID, cost: int) -> Closing:
        row = OpenRequest.objects.filter(id=request).first()
        limits = row.intent["limits"] if row else []
        return Closing({**self._record(request, Status.SUCCESS, cost), "limits": limits}, None)

    def _record(self, request: UUID, status: Status, cost: int) -> dict[str, Any]:
        record = RequestRecord(
            id=request,
            timestamp=timezone.now(),
            organization_id=self.organization,
            status=status.value,
            http_status=200,
            cost_nano_usd=cost,
        )
        return {field.attname: getattr(record, field.attname) for field in RequestRecord._meta.concrete_fields}

    def _written(self, members: list[Member]) -> list[Any]:
        with transaction.atomic():
            return write_members(MovedClock(self.now), members)

    def _post(self, members: list[Member]) -> list[Any]:
        results = self._written(members)
        for member, result in zip(members, results, strict=True):
            if isinstance(member, Closing):
                self.under_way.pop(member.record["id"], None)
                self.closed[member.record["id"]] = member.record["cost_nano_usd"]
            elif isinstance(result, Reserved):
                request = member.claim.request_id
                self.under_way[request] = result.nano_usd
                self.admitted += [(policy.id, cap.span_hours, self.now, request) for policy, cap in member.claim.caps]
        if len(members) == 1 and isinstance(members[0], Intent):
            self._check_decision(members[0].claim, results[0])
        return results

    def _check_decision(self, claim: Claim, result: Reserved | OverBudget) -> None:
        claimed = {policy.id for policy, _ in claim.caps}
        hard = [cap for cap in self.caps if cap.id in claimed and cap.rule.hard]
        left = [self._left(cap) for cap in hard]
        if isinstance(result, Reserved):
            assert all(nano_usd >= 0 for nano_usd in left)
            for cap in hard:
                if cap.rule.span_hours is not None:
                    assert self._used_since(cap, self.now - timedelta(hours=24)) <= cap.rule.limit_nano_usd
            return
        least = claim.worst.with_output(min(1, claim.worst.output_tokens))
        needed = [least if cap.rule.fit is Fit.CLAMP else claim.worst.nano_usd for cap in hard]
        assert any(nano_usd < need for nano_usd, need in zip(left, needed, strict=True)), (
            "a request that fits was refused"
        )


def _used(budget: Budget | None) -> int:
    return budget.spent_nano_usd + budget.reserved_nano_usd if budget else 0
