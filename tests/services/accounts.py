"""Three accounts of the same requests, held against each other: the provider's log, the records, and the ledger.

A request is known in all three by its ``user`` label, which the client chose, the provider received and the record
keeps as ``end_user``.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg

from tests.mock_upstream import Call

_OPEN = "SELECT count(*) FROM audit_openrequest"
_RESERVED = "SELECT count(*) FROM policies_reservation"
_RECORDS = "SELECT id::text, end_user, status, usage_source, cost_nano_usd, attempts FROM audit_requestrecord"
_POSTED = "SELECT request_id::text, budget_id::text, amount_nano_usd FROM policies_ledgerentry"
_COUNTERS = "SELECT b.id::text, b.spent_nano_usd, b.reserved_nano_usd FROM policies_budget b"


def read(database_url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own, and commit it."""
    with psycopg.connect(database_url.replace("postgres://", "postgresql://", 1), connect_timeout=5) as connection:
        cursor = connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def differences(database_url: str, calls: Iterable[Call]) -> list[str]:
    """Return one sentence for each thing that differs. Nothing may be under way any more."""
    called = Counter(call.json["user"] for call in calls)
    records = read(database_url, _RECORDS)
    posted = read(database_url, _POSTED)
    cost = {request: amount for request, *_, amount, _ in records}
    recorded = Counter(user for _, user, *_ in records)
    said = [f"{recorded[user]} records of {user}, which reached the provider" for user in called if recorded[user] != 1]
    said += [f"{count} records of {user}" for user, count in recorded.items() if user and count > 1]
    said += [
        f"{user} costs {amount} and never reached the provider"
        for _, user, status, _, amount, _ in records
        if amount and not called[user] and status != "interrupted"
    ]
    said += [f"{count} requests are open" for (count,) in read(database_url, _OPEN) if count]
    said += [f"{count} reservations are held" for (count,) in read(database_url, _RESERVED) if count]
    entries = Counter((request, budget) for request, budget, _ in posted)
    said += [f"{request} is posted {count} times to one budget" for (request, _), count in entries.items() if count > 1]
    said += [
        f"{request} is posted with {amount}, its record says {cost.get(request)}"
        for request, _, amount in posted
        if cost.get(request) != amount
    ]
    sums = Counter[str]()
    for _, budget, amount in posted:
        sums[budget] += amount
    for budget, spent, reserved in read(database_url, _COUNTERS):
        if (spent, reserved) != (sums[budget], 0):
            said.append(f"budget {budget} counts {spent} spent and {reserved} reserved; its ledger says {sums[budget]}")
    return said


def open_users(database_url: str) -> set[str]:
    """Return the labels of the requests whose intent is committed and whose end is not."""
    return {user for (user,) in read(database_url, "SELECT intent->>'end_user' FROM audit_openrequest")}


def recorded(database_url: str) -> dict[str, tuple[str, str, int]]:
    """Return status, who counted, and cost in nano-USD of each request, by its label."""
    return {user: (status, source, cost) for _, user, status, source, cost, _ in read(database_url, _RECORDS) if user}
