"""Budgets: the worst case is reserved before a call and the real cost settled after it, in PostgreSQL alone.

This module reckons; the caller owns the transaction and reads and writes the rows. Every counter that a group of
requests touches is locked first, in the order of its id, so that two processes can wait for each other but never in
a circle.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from apps.audit.rows import Row
from apps.audit.uuid7 import uuid7
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Policy
from apps.policies.models import Budget
from apps.policies.prices import WorstCase

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""The start of the one window of a cap that never resets."""


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


class Budgets:
    """The counters as one transaction sees and changes them, in memory between their lock and their write.

    ``held`` are the reservations that the settled requests had: (request, budget, nano-USD). Load the counters named
    by `wanted`, locked in that order; then settle and reserve; then write `changed`, `reservations` and `ledger`.
    """

    def __init__(self, now: datetime, held: Iterable[tuple[UUID, UUID, int]]) -> None:
        self._now = now
        self._places: dict[tuple[UUID, Per], Place] = {}
        self._counters: dict[UUID, Counter] = {}
        self._changed: set[UUID] = set()
        self._held: dict[UUID, list[tuple[UUID, int]]] = {}
        for request, budget, amount in held:
            self._held.setdefault(request, []).append((budget, amount))
        self.reservations: list[Row] = []
        self.ledger: list[Row] = []

    def wanted(self, claims: Sequence[Claim]) -> list[UUID]:
        """Return the ids of every counter that the group touches, in the order in which all processes lock."""
        windows = {self._place(policy, cap).budget for claim in claims for policy, cap in claim.caps}
        return sorted(windows | {budget for held in self._held.values() for budget, _ in held})

    def load(self, counters: Iterable[Counter]) -> None:
        """Take in locked counters."""
        self._counters |= {counter.id: counter for counter in counters}

    def missing(self, claims: Sequence[Claim]) -> list[Budget]:
        """Return the counters that do not exist yet, for whoever creates them."""
        caps = {self._place(p, cap).budget: (p, cap) for claim in claims for p, cap in claim.caps}
        return [self._new(*caps[budget]) for budget in sorted(caps.keys() - self._counters.keys())]

    def changed(self) -> list[Counter]:
        """Return the counters to be written back."""
        return [self._counters[budget] for budget in sorted(self._changed)]

    def settle(self, settlement: Settlement) -> int:
        """Post a request's cost where it had reserved; return by how much it ran over its reservation."""
        overrun = 0
        for budget, amount in self._held.pop(settlement.request_id, ()):
            counter = self._counters[budget]
            over = max(0, settlement.nano_usd - amount)
            counter.reserved -= amount
            counter.spent += settlement.nano_usd
            counter.overrun += over
            overrun = max(overrun, over)
            self._changed.add(budget)
            if settlement.nano_usd:
                self.ledger.append(self._entry(settlement, counter, over))
        return overrun

    def reserve(self, claim: Claim) -> Reserved | OverBudget:
        """Reserve a request's worst case against all its caps, or nothing."""
        pairs = [(p, cap, self._counters[self._place(p, cap).budget]) for p, cap in claim.caps]
        reaches = [_reach(claim, cap, counter) for p, cap, counter in pairs if _binds(p, cap)]
        tokens = min([claim.worst.output_tokens, *reaches])
        amount = claim.worst.with_output(max(tokens, 0))
        readings = tuple(_reading(p, cap, counter, self._place(p, cap)) for p, cap, counter in pairs)
        for policy, cap, counter in pairs:
            left = cap.limit_nano_usd - counter.spent - counter.reserved
            short = amount > left or _reach(claim, cap, counter) < _least(claim)
            if _binds(policy, cap) and short:
                return OverBudget(policy, cap, max(0, left), self._place(policy, cap).end, readings)
        for _, cap, counter in pairs:
            self._hold(claim, cap, counter, amount)
        return Reserved(tokens, amount, readings)

    def _hold(self, claim: Claim, cap: CostCap, counter: Counter, amount: int) -> None:
        counter.reserved += amount
        counter.limit = cap.limit_nano_usd
        self._changed.add(counter.id)
        self.reservations.append(
            {"id": uuid7(), "request_id": claim.request_id, "budget_id": counter.id, "amount_nano_usd": amount}
        )

    def _entry(self, settlement: Settlement, counter: Counter, over: int) -> Row:
        return {
            "id": uuid7(),
            "timestamp": self._now,
            "budget_id": counter.id,
            "organization_id": counter.organization_id,
            "request_id": settlement.request_id,
            "amount_nano_usd": settlement.nano_usd,
            "overrun_nano_usd": over,
        }

    def _place(self, policy: Policy, cap: CostCap) -> "Place":
        key = (policy.id, cap.per)
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
            limit_nano_usd=cap.limit_nano_usd,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cap counts at a time: the id of its counter, and that one's window (``end`` is ``None``: no end)."""

    budget: UUID
    start: datetime
    end: datetime | None


def place_of(policy: Policy, cap: CostCap, now: datetime) -> Place:
    """Return where a cap counts at ``now``, the database's time."""
    start, end = window(cap.per, now)
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


def _reach(claim: Claim, cap: CostCap, counter: Counter) -> int:
    """How many output tokens the cap reaches for; all that were asked for, where the cap does not clamp."""
    if cap.fit is Fit.REFUSE:
        return claim.worst.output_tokens
    return claim.worst.output_within(cap.limit_nano_usd - counter.spent - counter.reserved)


def _least(claim: Claim) -> int:
    """The fewest output tokens a clamped request is still worth sending with."""
    return min(claim.worst.least_output, claim.worst.output_tokens)


def _reading(policy: Policy, cap: CostCap, counter: Counter, place: Place) -> dict[str, Any]:
    return {
        "policy_id": str(policy.id),
        "policy": policy.name,
        "kind": "cost_cap",
        "per": cap.per.value,
        "limit_nano_usd": cap.limit_nano_usd,
        # What the whole platform spends is nobody's business but the platform's.
        **(
            {}
            if policy.level is Level.PLATFORM
            else {"spent_nano_usd": counter.spent, "reserved_nano_usd": counter.reserved}
        ),
        "resets_at": place.end.isoformat() if place.end else None,
    }
