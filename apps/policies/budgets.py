"""Budgets: the worst case is reserved before a call and the real cost settled after it, in PostgreSQL alone.

This module reckons; the caller owns the transaction and reads and writes the rows. Every counter that a group of
requests touches is locked first, in the order of its id, so that two processes can wait for each other but never in
a circle.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from django.utils import timezone

from apps.audit.rows import Row
from apps.audit.uuid7 import uuid7
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Policy
from apps.policies.models import Budget
from apps.policies.prices import WorstCase

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""The start of the one window of a cap that never resets, or that rolls."""
PARTS = 60
"""A rolling span is counted in so many parts. What was spent leaves it with the last moment of its part."""
PRUNED_AFTER = timedelta(hours=1)
"""How much longer than its span a part is kept: a transaction that began long ago may still look at it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request asks to reserve: its worst case against every cost cap of its scopes."""

    request_id: UUID
    organization_id: UUID
    caps: tuple[tuple[Policy, CostCap], ...]
    worst: WorstCase


@dataclass(frozen=True, slots=True)
class Reserved:
    """All caps reach. ``output_tokens`` is what the answer may use, lowered if a cap clamps."""

    output_tokens: int
    nano_usd: int
    readings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A hard cap does not reach; nothing was reserved anywhere."""

    policy: Policy
    cap: CostCap
    left_nano_usd: int
    resets_at: datetime | None
    readings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a finished request cost, to be posted against the budgets it had reserved."""

    request_id: UUID
    nano_usd: int


@dataclass(slots=True)
class Counter:
    """A budget's row while it is locked. Amounts in nano-USD."""

    id: UUID
    organization_id: UUID | None
    limit: int
    reserved: int
    spent: int
    overrun: int
    alert_at: list[int] | None = None
    span_hours: int | None = None


def counter_of(budget: Budget) -> Counter:
    """Return the counter that a stored budget is, for whoever reckons and does not write."""
    return Counter(
        id=budget.pk,
        organization_id=budget.organization_id,
        limit=budget.limit_nano_usd,
        reserved=budget.reserved_nano_usd,
        spent=budget.spent_nano_usd,
        overrun=budget.overrun_nano_usd,
    )


def counter_as_read(budget: UUID, organization_id: UUID | None, reading: Mapping[str, Any]) -> Counter:
    """Return a counter as a record's reading of it shows it; see `Budgets.reserve`."""
    return Counter(
        id=budget,
        organization_id=organization_id,
        limit=reading["limit_nano_usd"],
        reserved=reading["reserved_nano_usd"],
        spent=reading["spent_nano_usd"],
        overrun=0,
    )


@dataclass(slots=True)
class Part:
    """One part of a rolling budget's span: what was reserved in it, or spent by what was reserved in it."""

    budget: UUID
    start: datetime
    used: int

    @property
    def id(self) -> UUID:
        """The same for whoever counts in it."""
        return uuid5(self.budget, self.start.isoformat())


@dataclass(frozen=True, slots=True)
class Held:
    """What a request that is being settled had reserved at one budget."""

    request: UUID
    budget: UUID
    amount: int
    part_start: datetime | None


class Budgets:
    """The counters as one transaction sees and changes them, in memory between their lock and their write.

    ``held`` are the reservations that the settled requests had. Load the counters named by `wanted`, locked in that
    order, and after that the parts of those that are `rolling`; then settle and reserve; then write what came of it.
    """

    def __init__(self, now: datetime, held: Iterable[Held]) -> None:
        self._now = now
        self._places: dict[tuple[UUID, Per, int | None], Place] = {}
        self._counters: dict[UUID, Counter] = {}
        self._changed: set[UUID] = set()
        self._parts: dict[UUID, dict[datetime, Part]] = {}
        self._changed_parts: dict[UUID, Part] = {}
        self._held: dict[UUID, list[Held]] = {}
        for one in held:
            self._held.setdefault(one.request, []).append(one)
        self.reservations: list[Row] = []
        self.ledger: list[Row] = []
        self.alerts: list[Row] = []

    def wanted(self, claims: Sequence[Claim]) -> list[UUID]:
        """Return the ids of every counter that the group touches, in the order in which all processes lock."""
        windows = {self._place(policy, cap).budget for claim in claims for policy, cap in claim.caps}
        return sorted(windows | {one.budget for held in self._held.values() for one in held})

    def rolling(self, claims: Sequence[Claim]) -> list[UUID]:
        """Return the ids of the counters whose parts are needed, to be read once the counters are locked."""
        claimed = {self._place(p, cap).budget for claim in claims for p, cap in claim.caps if cap.span_hours}
        return sorted(claimed | {one.budget for held in self._held.values() for one in held if one.part_start})

    def load_parts(self, parts: Iterable[Part]) -> None:
        """Take in the parts of locked counters, all that there are."""
        for part in parts:
            self._parts.setdefault(part.budget, {})[part.start] = part

    def changed_parts(self) -> list[Part]:
        """Return the parts to be written."""
        return list(self._changed_parts.values())

    def expired_parts(self) -> list[UUID]:
        """Return the ids of parts that no span of a claimed cap reaches any more."""
        spans = {place.budget: place.span for place in self._places.values() if place.span}
        return [
            part.id
            for budget, span in spans.items()
            for part in self._parts.get(budget, {}).values()
            if part.start + span + span / PARTS + PRUNED_AFTER <= self._now
        ]

    def load(self, counters: Iterable[Counter]) -> None:
        """Take in locked counters."""
        self._counters |= {counter.id: counter for counter in counters}

    def missing(self, claims: Sequence[Claim], seen: Container[UUID] = ()) -> list[Budget]:
        """Return the claimed counters that were neither loaded nor seen, for whoever creates them."""
        caps = {self._place(p, cap).budget: (p, cap) for claim in claims for p, cap in claim.caps}
        unknown = [budget for budget in caps if budget not in self._counters and budget not in seen]
        return [self._new(*caps[budget]) for budget in sorted(unknown)]

    def changed(self) -> list[Counter]:
        """Return the counters to be written back."""
        return [self._counters[budget] for budget in sorted(self._changed)]

    def settle(self, settlement: Settlement) -> int:
        """Post a request's cost where it had reserved; return by how much it ran over its reservation."""
        overrun = 0
        for held in self._held.pop(settlement.request_id, ()):
            counter = self._counters[held.budget]
            over = max(0, settlement.nano_usd - held.amount)
            counter.reserved -= held.amount
            counter.spent += settlement.nano_usd
            counter.overrun += over
            overrun = max(overrun, over)
            self._changed.add(held.budget)
            if held.part_start is not None:
                self._use(held.budget, held.part_start, settlement.nano_usd - held.amount)
            if settlement.nano_usd:
                self.ledger.append(self._entry(settlement, counter, over, held.part_start))
                self._alert(counter, settlement.nano_usd)
        return overrun

    def reserve(self, claim: Claim) -> Reserved | OverBudget:
        """Reserve a request's worst case against all its caps, or nothing."""
        pairs = [(p, cap, self._counters[self._place(p, cap).budget]) for p, cap in claim.caps]
        reaches = [_reach(claim, cap, self._left(p, cap, counter)) for p, cap, counter in pairs if _binds(p, cap)]
        tokens = min([claim.worst.output_tokens, *reaches])
        amount = claim.worst.with_output(max(tokens, 0))
        readings = tuple(self._reading(p, cap, counter) for p, cap, counter in pairs)
        for policy, cap, counter in pairs:
            left = self._left(policy, cap, counter)
            short = amount > left or _reach(claim, cap, left) < _least(claim)
            if _binds(policy, cap) and short:
                return OverBudget(policy, cap, max(0, left), self._resets_at(policy, cap), readings)
        for policy, cap, counter in pairs:
            self._hold(claim, counter, amount, self._place(policy, cap))
            if (counter.limit, counter.alert_at or []) != (cap.limit_nano_usd, list(cap.alert_at)):
                counter.limit, counter.alert_at = cap.limit_nano_usd, list(cap.alert_at) or None
                self._alert(counter, None)
        return Reserved(tokens, amount, readings)

    def _left(self, policy: Policy, cap: CostCap, counter: Counter) -> int:
        """What a cap has left: of its window, or of the span that ends now (with the whole of its oldest part)."""
        place = self._place(policy, cap)
        if place.span is None:
            return cap.limit_nano_usd - counter.spent - counter.reserved
        return cap.limit_nano_usd - sum(part.used for part in self._live(place))

    def _live(self, place: "Place") -> list[Part]:
        """Return the parts that the span reaches, and later ones, which a transaction that began later counted in."""
        assert place.span is not None
        since = self._now - place.span - place.span / PARTS
        return [part for part in self._parts.get(place.budget, {}).values() if part.start > since]

    def _resets_at(self, policy: Policy, cap: CostCap) -> datetime | None:
        """When a cap's window ends, or when the first money comes back to a span."""
        place = self._place(policy, cap)
        if place.span is None:
            return place.end
        used = [part.start for part in self._live(place) if part.used]
        return min(used) + place.span + place.span / PARTS if used else None

    def _hold(self, claim: Claim, counter: Counter, amount: int, place: "Place") -> None:
        counter.reserved += amount
        self._changed.add(counter.id)
        part_start = place.part_start(self._now)
        if part_start is not None:
            self._parts.setdefault(counter.id, {}).setdefault(part_start, Part(counter.id, part_start, 0))
            self._use(counter.id, part_start, amount)
        self.reservations.append(
            {
                "id": uuid7(),
                "request_id": claim.request_id,
                "budget_id": counter.id,
                "amount_nano_usd": amount,
                "part_start": part_start,
            }
        )

    def _use(self, budget: UUID, start: datetime, amount: int) -> None:
        part = self._parts.get(budget, {}).get(start)
        if part is not None:  # a part that left its span long ago was forgotten
            part.used += amount
            self._changed_parts[part.id] = part

    def _alert(self, counter: Counter, posted: int | None) -> None:
        """Record the percents that ``posted`` crossed; ``None``: all that are crossed, since limit or percents changed.

        A percent that was recorded in this window before is left out by the table's own rule.
        """
        if not counter.alert_at:
            return
        spent, day = counter.spent, BEGINNING
        if counter.span_hours is not None:
            since = self._now - timedelta(hours=counter.span_hours)
            live = [part.used for part in self._parts.get(counter.id, {}).values() if part.start > since]
            spent = sum(live) - counter.reserved
            day = self._now.replace(hour=0, minute=0, second=0, microsecond=0)
        before = 0 if posted is None else spent - posted
        self.alerts += [
            {
                "id": uuid7(),
                "timestamp": self._now,
                "budget_id": counter.id,
                "organization_id": counter.organization_id,
                "window_start": day,
                "percent": percent,
                "spent_nano_usd": spent,
                "limit_nano_usd": counter.limit,
            }
            for percent in counter.alert_at
            if before * 100 < counter.limit * percent <= spent * 100
        ]

    def _entry(self, settlement: Settlement, counter: Counter, over: int, part_start: datetime | None) -> Row:
        return {
            "id": uuid7(),
            "timestamp": self._now,
            "budget_id": counter.id,
            "organization_id": counter.organization_id,
            "request_id": settlement.request_id,
            "amount_nano_usd": settlement.nano_usd,
            "overrun_nano_usd": over,
            "part_start": part_start,
        }

    def _reading(self, policy: Policy, cap: CostCap, counter: Counter) -> dict[str, Any]:
        resets_at = self._resets_at(policy, cap)
        spent = cap.limit_nano_usd - self._left(policy, cap, counter) - counter.reserved
        return {
            "policy_id": str(policy.id),
            "policy": policy.name,
            "kind": "cost_cap",
            "per": cap.per.value,
            **({} if cap.span_hours is None else {"span_hours": cap.span_hours}),
            "limit_nano_usd": cap.limit_nano_usd,
            # What the whole platform spends is nobody's business but the platform's.
            **(
                {}
                if policy.level is Level.PLATFORM
                else {"spent_nano_usd": spent, "reserved_nano_usd": counter.reserved}
            ),
            "resets_at": resets_at.isoformat() if resets_at else None,
        }

    def _place(self, policy: Policy, cap: CostCap) -> "Place":
        key = (policy.id, cap.per, cap.span_hours)
        if key not in self._places:
            self._places[key] = place_of(policy, cap, self._now)
        return self._places[key]

    def _new(self, policy: Policy, cap: CostCap) -> Budget:
        place = self._place(policy, cap)
        return Budget(
            id=place.budget,
            policy_id=policy.id,
            organization_id=policy.organization_id,
            window_start=place.start,
            window_end=place.end,
            span_hours=cap.span_hours,
            limit_nano_usd=cap.limit_nano_usd,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cap counts at a time: the id of its counter, and that one's window (``end`` is ``None``: no end).

    ``span`` is how long a rolling window is.
    """

    budget: UUID
    start: datetime
    end: datetime | None
    span: timedelta | None = None

    def part_start(self, now: datetime) -> datetime | None:
        """Return the start of the part of a rolling span that ``now`` lies in; ``None`` where the window is fixed."""
        return now - (now - BEGINNING) % (self.span / PARTS) if self.span else None


def spent_now(budget: Budget) -> int:
    """Return what a stored counter's window has spent, in nano-USD; of a rolling one, what its span holds now.

    Reads the budget's ``parts``, which a list of budgets fetches beforehand.
    """
    if budget.span_hours is None:
        return budget.spent_nano_usd
    span = timedelta(hours=budget.span_hours)
    since = timezone.now() - span - span / PARTS
    used = sum(part.used_nano_usd for part in budget.parts.all() if part.starts_at > since)
    return max(0, used - budget.reserved_nano_usd)


def place_of(policy: Policy, cap: CostCap, now: datetime) -> Place:
    """Return where a cap counts at ``now``, the database's time."""
    start, end = window(cap.per, now)
    if cap.span_hours is not None:
        return Place(uuid5(policy.id, f"rolling {cap.span_hours} h"), start, end, timedelta(hours=cap.span_hours))
    return Place(uuid5(policy.id, start.isoformat()), start, end)


def window(per: Per, now: datetime) -> tuple[datetime, datetime | None]:
    """Return start and end of the window, in UTC, that ``now`` lies in; the end is ``None`` where it never resets."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per is Per.DAY:
        return today, today + timedelta(days=1)
    if per is Per.WEEK:
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    if per is Per.MONTH:
        first = today.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    return BEGINNING, None


def _binds(policy: Policy, cap: CostCap) -> bool:
    return cap.hard and policy.enforced


def _reach(claim: Claim, cap: CostCap, left: int) -> int:
    """How many output tokens the cap reaches for; all that were asked for, where the cap does not clamp."""
    if cap.fit is Fit.REFUSE:
        return claim.worst.output_tokens
    return claim.worst.output_within(left)


def _least(claim: Claim) -> int:
    """The fewest output tokens a clamped request is still worth sending with."""
    return min(claim.worst.least_output, claim.worst.output_tokens)
