"""The proof that the money adds up: counters, ledger, reservations, open requests and records against each other.

Everything is compared by the database in one snapshot, so that it may run beside traffic and keeps nothing in memory
but what differs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from apps.audit.money import usd_from_nano
from apps.audit.snapshot import snapshot

MOST_SHOWN = 100
"""How many differences of one kind are named; beyond it they are only said to be more."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How much was compared, by its name for people, and what differs, each in one sentence."""

    compared: dict[str, int]
    differences: list[str]


def prove(organization: UUID | None = None) -> Proof:
    """Compare everything, or what belongs to one organization, as of one moment."""
    with snapshot():
        compared = {name: _count(statement, organization) for name, statement in _COUNTS.items()}
        differences = [found for check in _checks() for found in _differences(check, organization)]
    return Proof(compared, differences)


@dataclass(frozen=True, slots=True)
class _Check:
    """A statement that finds what differs, and the sentence about one row of it. ``owner``: who a row belongs to."""

    statement: str
    owner: str
    say: Callable[..., str]


def _count(statement: str, organization: UUID | None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(*_scoped(statement, "organization_id", organization))
        return int(cursor.fetchone()[0])


def _differences(check: _Check, organization: UUID | None) -> list[str]:
    statement, parameters = _scoped(check.statement, check.owner, organization)
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} LIMIT {MOST_SHOWN + 1}", parameters)
        rows = cursor.fetchall()
    found = [check.say(*row) for row in rows[:MOST_SHOWN]]
    return found + ["There are more of this kind."] * (len(rows) > MOST_SHOWN)


def _scoped(statement: str, owner: str, organization: UUID | None) -> tuple[str, list[Any]]:
    if organization is None:
        return statement, []
    value = str(organization) if connection.vendor == "postgresql" else organization.hex
    return f"{statement} AND {owner} = %s", [value]


def _usd(nano: Any) -> str:
    return f"{usd_from_nano(int(nano))} USD"


def _budget(budget: Any, policy: Any, name: str | None, start: Any) -> str:
    day = start.date() if isinstance(start, datetime) else str(start)[:10]
    return f"Budget {UUID(str(budget))} of policy {UUID(str(policy))} ({name or 'deleted'}) from {day}"


def _say_spent(spent: int, posted: int, *budget: Any) -> str:
    return f"{_budget(*budget)}: {_usd(spent)} is spent, but its ledger sums up to {_usd(posted)}."


def _say_overrun(overrun: int, posted: int, *budget: Any) -> str:
    return f"{_budget(*budget)}: {_usd(overrun)} is overrun, but its ledger's overruns sum up to {_usd(posted)}."


def _say_reserved(reserved: int, held: int, *budget: Any) -> str:
    return f"{_budget(*budget)}: {_usd(reserved)} is reserved, but its reservations sum up to {_usd(held)}."


def _say_unrecorded(request: Any, amount: int, *budget: Any) -> str:
    return f"{_budget(*budget)}: an entry of {_usd(amount)} is for request {UUID(str(request))}, which has no record."


def _say_cost(request: Any, amount: int, cost: int, *budget: Any) -> str:
    return (
        f"{_budget(*budget)}: an entry of {_usd(amount)} is for request {UUID(str(request))}, "
        f"whose record says that it cost {_usd(cost)}."
    )


def _say_abandoned(request: Any, amount: int, *budget: Any) -> str:
    return f"{_budget(*budget)}: {_usd(amount)} is reserved for request {UUID(str(request))}, which is not open."


def _say_part(used: int, summed: int, start: Any, *budget: Any) -> str:
    return (
        f"{_budget(*budget)}: the part of its span from {start} uses {_usd(used)}, "
        f"but what was reserved in it sums up to {_usd(summed)}."
    )


def _say_unposted(request: Any, cost: int, policy: Any) -> str:
    return (
        f"Request {UUID(str(request))} cost {_usd(cost)} under the cost cap {UUID(str(policy))}, "
        "but no ledger entry posts it there."
    )


_BUDGET = "b.id, b.policy_id, p.name, b.window_start"
_POLICY = "LEFT JOIN policies_policy p ON p.id = b.policy_id"
_ENTRIES = (
    "policies_budget b LEFT JOIN (SELECT budget_id, SUM(amount_nano_usd) AS amount, SUM(overrun_nano_usd) AS overrun"
    f" FROM policies_ledgerentry GROUP BY budget_id) l ON l.budget_id = b.id {_POLICY}"
)
_HELD = (
    "policies_budget b LEFT JOIN (SELECT budget_id, SUM(amount_nano_usd) AS amount"
    f" FROM policies_reservation GROUP BY budget_id) h ON h.budget_id = b.id {_POLICY}"
)
_POSTED = (
    "policies_ledgerentry l JOIN policies_budget b ON b.id = l.budget_id"
    f" LEFT JOIN audit_requestrecord r ON r.id = l.request_id {_POLICY}"
)
_PARTS = (
    "policies_spanpart s JOIN policies_budget b ON b.id = s.budget_id LEFT JOIN (SELECT budget_id, part_start,"
    " SUM(amount_nano_usd) AS amount FROM (SELECT budget_id, part_start, amount_nano_usd FROM policies_ledgerentry"
    " WHERE part_start IS NOT NULL UNION ALL SELECT budget_id, part_start, amount_nano_usd FROM policies_reservation"
    " WHERE part_start IS NOT NULL) a GROUP BY budget_id, part_start) u"
    f" ON u.budget_id = s.budget_id AND u.part_start = s.starts_at {_POLICY}"
)
_UNDER_WAY = (
    "policies_reservation h JOIN policies_budget b ON b.id = h.budget_id"
    f" LEFT JOIN audit_openrequest o ON o.id = h.request_id {_POLICY}"
)


def _unposted() -> str:
    """A record's limits name the cost caps that it had reserved under."""
    if connection.vendor == "postgresql":
        caps, kind, policy = "LATERAL jsonb_array_elements(r.limits) c", "c->>'kind'", "(c->>'policy_id')::uuid"
    else:
        caps, kind = "json_each(r.limits) c", "json_extract(c.value, '$.kind')"
        policy = "replace(json_extract(c.value, '$.policy_id'), '-', '')"
    return (
        f"SELECT r.id, r.cost_nano_usd, {policy} FROM audit_requestrecord r, {caps}"
        f" WHERE r.cost_nano_usd > 0 AND {kind} = 'cost_cap' AND NOT EXISTS (SELECT 1 FROM policies_ledgerentry l"
        f" JOIN policies_budget b ON b.id = l.budget_id WHERE l.request_id = r.id AND b.policy_id = {policy})"
    )


def _checks() -> list[_Check]:
    return [
        _Check(
            f"SELECT b.spent_nano_usd, COALESCE(l.amount, 0), {_BUDGET} FROM {_ENTRIES}"
            " WHERE b.spent_nano_usd <> COALESCE(l.amount, 0)",
            "b.organization_id",
            _say_spent,
        ),
        _Check(
            f"SELECT b.overrun_nano_usd, COALESCE(l.overrun, 0), {_BUDGET} FROM {_ENTRIES}"
            " WHERE b.overrun_nano_usd <> COALESCE(l.overrun, 0)",
            "b.organization_id",
            _say_overrun,
        ),
        _Check(
            f"SELECT b.reserved_nano_usd, COALESCE(h.amount, 0), {_BUDGET} FROM {_HELD}"
            " WHERE b.reserved_nano_usd <> COALESCE(h.amount, 0)",
            "b.organization_id",
            _say_reserved,
        ),
        _Check(
            f"SELECT l.request_id, l.amount_nano_usd, {_BUDGET} FROM {_POSTED} WHERE r.id IS NULL",
            "b.organization_id",
            _say_unrecorded,
        ),
        _Check(
            f"SELECT l.request_id, l.amount_nano_usd, r.cost_nano_usd, {_BUDGET} FROM {_POSTED}"
            " WHERE l.amount_nano_usd <> r.cost_nano_usd",
            "b.organization_id",
            _say_cost,
        ),
        _Check(
            f"SELECT h.request_id, h.amount_nano_usd, {_BUDGET} FROM {_UNDER_WAY} WHERE o.id IS NULL",
            "b.organization_id",
            _say_abandoned,
        ),
        _Check(
            f"SELECT s.used_nano_usd, COALESCE(u.amount, 0), s.starts_at, {_BUDGET} FROM {_PARTS}"
            " WHERE s.used_nano_usd <> COALESCE(u.amount, 0)",
            "b.organization_id",
            _say_part,
        ),
        _Check(_unposted(), "r.organization_id", _say_unposted),
    ]


_COUNTS = {
    "budgets": "SELECT COUNT(*) FROM policies_budget WHERE 1 = 1",
    "ledger entries": "SELECT COUNT(*) FROM policies_ledgerentry WHERE 1 = 1",
    "reservations": (
        "SELECT COUNT(*) FROM policies_reservation h JOIN policies_budget b ON b.id = h.budget_id WHERE 1 = 1"
    ),
    "records with a cost": "SELECT COUNT(*) FROM audit_requestrecord WHERE cost_nano_usd > 0",
}
