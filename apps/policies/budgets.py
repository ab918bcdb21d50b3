"""Budgets: the worst case is reserved before a call and the real cost settled after it, in PostgreSQL alone.

Both run inside a transaction that the caller owns. Every counter that a group of requests touches is locked first,
in the order of its id, so that two processes can wait for each other but never in a circle.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.rows import Row, dump_rows, insert_rows
from apps.audit.uuid7 import uuid7
from apps.policies.engine.kinds import CostCap, Fit, Per
from apps.policies.engine.policy import Level, Policy
from apps.policies.models import Budget, LedgerEntry, Reservation
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
class _Counter:
    """A budget's row while it is locked."""

    id: UUID
    organization_id: UUID | None
    limit: int
    reserved: int
    spent: int
    overrun: int


class Budgets:
    """The counters as one transaction sees and changes them: lock, then settle and reserve, then save."""

    def __init__(self, connection: BaseDatabaseWrapper, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._counters: dict[UUID, _Counter] = {}
        self._changed: set[UUID] = set()
        self._released: dict[UUID, list[tuple[UUID, int]]] = {}
        self._reservations: list[Row] = []
        self._ledger: list[Row] = []

    def lock(self, claims: Sequence[Claim], settlements: Sequence[Settlement]) -> None:
        """Take out the settled requests' reservations and lock every counter the group touches."""
        self._take_out_reservations([s.request_id for s in settlements])
        wanted = {budget for held in self._released.values() for budget, _ in held}
        windows = {budget_id(p, cap, self._now): (p, cap) for c in claims for p, cap in c.caps}
        wanted |= windows.keys()
        if wanted:
            self._read(wanted)
        missing = sorted(windows.keys() - self._counters.keys())
        if missing:
            self._create({budget: windows[budget] for budget in missing})
            self._read(missing)

    def settle(self, settlement: Settlement) -> int:
        """Post a request's cost where it had reserved; return by how much it ran over its reservation."""
        overrun = 0
        for budget, amount in self._released.pop(settlement.request_id, ()):
            counter = self._counters[budget]
            over = max(0, settlement.nano_usd - amount)
            counter.reserved -= amount
            counter.spent += settlement.nano_usd
            counter.overrun += over
            overrun = max(overrun, over)
            self._changed.add(budget)
            if settlement.nano_usd:
                self._ledger.append(self._entry(settlement, counter, over))
        return overrun

    def reserve(self, claim: Claim) -> Reserved | OverBudget:
        """Reserve a request's worst case against all its caps, or nothing."""
        counters = [self._counters[budget_id(p, cap, self._now)] for p, cap in claim.caps]
        pairs = list(zip(claim.caps, counters, strict=True))
        tokens = min([claim.worst.output_tokens, *(_reach(claim, cap, c) for (p, cap), c in pairs if _binds(p, cap))])
        readings = tuple(_reading(p, cap, c, self._now) for (p, cap), c in pairs)
        amount = claim.worst.with_output(max(tokens, 0))
        for (policy, cap), counter in pairs:
            left = cap.limit_nano_usd - counter.spent - counter.reserved
            short = amount > left or _reach(claim, cap, counter) < _least(claim)
            if _binds(policy, cap) and short:
                return OverBudget(policy, cap, max(0, left), window(cap.per, self._now)[1], readings)
        for (_, cap), counter in pairs:
            self._hold(claim, cap, counter, amount)
        return Reserved(tokens, amount, readings)

    def save(self) -> None:
        """Write what changed."""
        changed = [self._counters[budget] for budget in sorted(self._changed)]
        if changed:
            self._update(changed)
        insert_rows(self._connection, Reservation, self._reservations)
        insert_rows(self._connection, LedgerEntry, self._ledger)

    def _hold(self, claim: Claim, cap: CostCap, counter: _Counter, amount: int) -> None:
        counter.reserved += amount
        counter.limit = cap.limit_nano_usd
        self._changed.add(counter.id)
        self._reservations.append(
            {"id": uuid7(), "request_id": claim.request_id, "budget_id": counter.id, "amount_nano_usd": amount}
        )

    def _entry(self, settlement: Settlement, counter: _Counter, over: int) -> Row:
        return {
            "id": uuid7(),
            "timestamp": self._now,
            "budget_id": counter.id,
            "organization_id": counter.organization_id,
            "request_id": settlement.request_id,
            "amount_nano_usd": settlement.nano_usd,
            "overrun_nano_usd": over,
        }

    def _take_out_reservations(self, requests: Sequence[UUID]) -> None:
        if not requests:
            return
        rows = Reservation.objects.using(self._connection.alias).filter(request_id__in=requests)
        held = list(rows.values_list("id", "request_id", "budget_id", "amount_nano_usd"))
        if not held:
            return
        for _, request, budget, amount in held:
            self._released.setdefault(request, []).append((budget, amount))
        rows._raw_delete(self._connection.alias)  # noqa: SLF001 (one statement: nothing refers to a reservation)

    def _read(self, budgets: Iterable[UUID]) -> None:
        rows = Budget.objects.using(self._connection.alias).filter(id__in=sorted(budgets)).order_by("id")
        if self._connection.features.has_select_for_update:
            rows = rows.select_for_update(of=("self",))
        for row in rows.values_list(
            "id", "organization_id", "limit_nano_usd", "reserved_nano_usd", "spent_nano_usd", "overrun_nano_usd"
        ):
            self._counters[row[0]] = _Counter(*row)

    def _create(self, windows: Mapping[UUID, tuple[Policy, CostCap]]) -> None:
        new = []
        for budget, (policy, cap) in windows.items():
            start, end = window(cap.per, self._now)
            new.append(
                Budget(
                    id=budget,
                    policy_id=policy.id,
                    organization_id=policy.organization_id,
                    window_start=start,
                    window_end=end,
                    limit_nano_usd=cap.limit_nano_usd,
                )
            )
        Budget.objects.using(self._connection.alias).bulk_create(new, ignore_conflicts=True)

    def _update(self, changed: Sequence[_Counter]) -> None:
        with self._connection.cursor() as cursor:
            if self._connection.vendor == "postgresql":
                cursor.execute(_UPDATE_POSTGRES, [dump_rows([_values(c) for c in changed])])
            else:
                for c in changed:
                    cursor.execute(_UPDATE_PLAIN, [c.limit, c.reserved, c.spent, c.overrun, c.id.hex])


def budget_id(policy: Policy, cap: CostCap, now: datetime) -> UUID:
    """Return the id of a cap's counter in the window that ``now`` (the database's time) lies in."""
    return uuid5(policy.id, window(cap.per, now)[0].isoformat())


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


def _reach(claim: Claim, cap: CostCap, counter: _Counter) -> int:
    """How many output tokens the cap reaches for; all that were asked for, where the cap does not clamp."""
    if cap.fit is Fit.REFUSE:
        return claim.worst.output_tokens
    return claim.worst.output_within(cap.limit_nano_usd - counter.spent - counter.reserved)


def _least(claim: Claim) -> int:
    """The fewest output tokens a clamped request is still worth sending with."""
    return min(1, claim.worst.output_tokens)


def _reading(policy: Policy, cap: CostCap, counter: _Counter, now: datetime) -> dict[str, Any]:
    resets = window(cap.per, now)[1]
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
        "resets_at": resets.isoformat() if resets else None,
    }


def _values(counter: _Counter) -> Row:
    return {
        "id": counter.id,
        "limit_": counter.limit,
        "reserved": counter.reserved,
        "spent": counter.spent,
        "overrun": counter.overrun,
    }


_UPDATE_POSTGRES = """
UPDATE policies_budget AS b
SET limit_nano_usd = v.limit_, reserved_nano_usd = v.reserved, spent_nano_usd = v.spent, overrun_nano_usd = v.overrun
FROM json_to_recordset(%s::json) AS v(id uuid, limit_ bigint, reserved bigint, spent bigint, overrun bigint)
WHERE b.id = v.id
"""
_UPDATE_PLAIN = """
UPDATE policies_budget
SET limit_nano_usd = %s, reserved_nano_usd = %s, spent_nano_usd = %s, overrun_nano_usd = %s WHERE id = %s
"""
