"""How a group of the journal reads and writes its rows: few statements, since each costs more than its rows.

On PostgreSQL a group is three statements besides BEGIN and COMMIT: one reads versions and time and takes out what is
being closed, one locks the counters of budgets, one writes everything, each table's rows as one JSON parameter.
Elsewhere (SQLite) the same steps are plain statements.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from apps.audit.models import OpenRequest, RequestRecord, RequestText
from apps.audit.prepared import run_prepared
from apps.audit.rows import Row, encode_rows, insert_rows, insert_statement
from apps.orgs.versions import PLATFORM_SCOPE, Versions, read_versions
from apps.policies.budgets import Counter
from apps.policies.models import Budget, LedgerEntry, Reservation


@dataclass(frozen=True, slots=True)
class Situation:
    """What a group finds: the database's time, the versions asked for, what it closes and what that had reserved."""

    now: datetime
    versions: dict[UUID, Versions]
    opened: frozenset[UUID]
    held: tuple[tuple[UUID, UUID, int], ...]


@dataclass(slots=True)
class Sheet:
    """What a group writes."""

    opens: list[Row] = field(default_factory=list)
    records: list[Row] = field(default_factory=list)
    texts: list[Row] = field(default_factory=list)
    reservations: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    counters: list[Counter] = field(default_factory=list)

    def inserts(self) -> list[tuple[type[models.Model], list[Row]]]:
        """Return the tables that get rows, and the rows."""
        tables: list[tuple[type[models.Model], list[Row]]] = [
            (OpenRequest, self.opens),
            (RequestRecord, self.records),
            (RequestText, self.texts),
            (Reservation, self.reservations),
            (LedgerEntry, self.ledger),
        ]
        return [(model, rows) for model, rows in tables if rows]


class GroupStore(Protocol):
    """The statements of one group, inside a transaction that the journal owns."""

    def begin(self, organizations: Sequence[UUID], closing: Sequence[UUID]) -> Situation:
        """Read the versions of ``organizations``; delete the open requests ``closing`` and their reservations."""
        ...

    def look(self, closing: Sequence[UUID]) -> tuple[datetime, list[tuple[UUID, UUID]]]:
        """Return the database's time and the (request, budget) pairs that ``closing`` had reserved; change nothing."""
        ...

    def locked(self, budgets: Sequence[UUID]) -> set[UUID]:
        """Lock those counters that nobody has locked; return the others that exist."""
        ...

    def lock(self, budgets: Sequence[UUID]) -> list[Counter]:
        """Lock counters in the order given and return those that exist."""
        ...

    def create(self, budgets: Sequence[Budget]) -> None:
        """Create counters, leaving alone what another process created first."""
        ...

    def write(self, sheet: Sheet) -> None:
        """Write everything."""
        ...


def group_store(connection: BaseDatabaseWrapper) -> GroupStore:
    """Return the store that fits a connection."""
    return PostgresStore(connection) if connection.vendor == "postgresql" else PlainStore(connection)


class PlainStore:
    """The steps as plain statements, for any database."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._using = connection.alias

    def begin(self, organizations: Sequence[UUID], closing: Sequence[UUID]) -> Situation:
        """Read versions, and take out what is being closed."""
        versions = read_versions(self._connection, organizations)
        open_rows = OpenRequest.objects.using(self._using).filter(id__in=closing)
        opened = frozenset(open_rows.values_list("id", flat=True)) if closing else frozenset()
        reservations = Reservation.objects.using(self._using).filter(request_id__in=opened)
        held = tuple(reservations.values_list("request_id", "budget_id", "amount_nano_usd")) if opened else ()
        if held:
            reservations.delete()
        if opened:
            open_rows.delete()
        return Situation(timezone.now(), versions, opened, held)

    def look(self, closing: Sequence[UUID]) -> tuple[datetime, list[tuple[UUID, UUID]]]:
        """Read time and reservations."""
        reservations = Reservation.objects.using(self._using).filter(request_id__in=closing)
        return timezone.now(), list(reservations.values_list("request_id", "budget_id"))

    def locked(self, budgets: Sequence[UUID]) -> set[UUID]:
        """Say that none is: a writing transaction on SQLite has the whole database to itself."""
        return set()

    def lock(self, budgets: Sequence[UUID]) -> list[Counter]:
        """Read counters; a writing transaction on SQLite has the whole database to itself."""
        rows = Budget.objects.using(self._using).filter(id__in=budgets)
        return [Counter(*row) for row in rows.values_list(*_COUNTER_COLUMNS)]

    def create(self, budgets: Sequence[Budget]) -> None:
        """Create counters."""
        Budget.objects.using(self._using).bulk_create(budgets, ignore_conflicts=True)

    def write(self, sheet: Sheet) -> None:
        """Write table by table."""
        for counter in sheet.counters:
            Budget.objects.using(self._using).filter(id=counter.id).update(
                limit_nano_usd=counter.limit,
                reserved_nano_usd=counter.reserved,
                spent_nano_usd=counter.spent,
                overrun_nano_usd=counter.overrun,
            )
        for model, rows in sheet.inserts():
            insert_rows(self._connection, model, rows)


class PostgresStore(PlainStore):
    """The steps in as few statements as PostgreSQL allows."""

    def begin(self, organizations: Sequence[UUID], closing: Sequence[UUID]) -> Situation:
        """Read versions, time and what is being closed in one statement."""
        requests = {str(request): request for request in closing}
        ids = _array(requests)
        found = self._run(_BEGIN, ids, ids, _array([str(PLATFORM_SCOPE), *map(str, organizations)]))
        versions = found["versions"]
        platform = versions.get(str(PLATFORM_SCOPE), 0)
        return Situation(
            now=datetime.fromisoformat(found["now"]),
            versions={scope: Versions(platform, versions.get(str(scope), 0)) for scope in organizations},
            opened=frozenset(requests[request] for request in found["opened"]),
            held=tuple((requests[request], _uuid(budget), amount) for request, budget, amount in found["held"]),
        )

    def look(self, closing: Sequence[UUID]) -> tuple[datetime, list[tuple[UUID, UUID]]]:
        """Read time and reservations in one statement."""
        found = self._run(_LOOK, _array(map(str, closing)))
        return datetime.fromisoformat(found["now"]), [(_uuid(r), _uuid(b)) for r, b in found["held"]]

    def locked(self, budgets: Sequence[UUID]) -> set[UUID]:
        """Lock what is free in one statement."""
        return {_uuid(budget) for budget in self._run(_LOCKED, _array(map(str, budgets)))} if budgets else set()

    def lock(self, budgets: Sequence[UUID]) -> list[Counter]:
        """Lock counters in the order of their ids."""
        return [
            Counter(_uuid(budget), _uuid(organization) if organization else None, *amounts)
            for budget, organization, *amounts in self._run(_LOCK, _array(map(str, budgets)))
        ]

    def write(self, sheet: Sheet) -> None:
        """Write everything in one statement."""
        inserts = sheet.inserts()
        parameters = [encode_rows(rows) for _, rows in inserts]
        if sheet.counters:
            parameters.append(encode_rows([_counter_row(counter) for counter in sheet.counters]))
        if parameters:
            self._run(_write_statement(tuple(m for m, _ in inserts), bool(sheet.counters)), *parameters)

    def _run(self, statement: bytes, *parameters: bytes) -> Any:
        return orjson.loads(run_prepared(self._connection, statement, parameters) or b"null")


_uuid = functools.lru_cache(maxsize=4096)(UUID)


def _array(values: Iterable[str]) -> bytes:
    return f"{{{','.join(values)}}}".encode()


@functools.lru_cache(maxsize=64)
def _write_statement(tables: tuple[type[models.Model], ...], counters: bool) -> bytes:
    parts = [f"i{number} AS ({insert_statement(model, number)})" for number, model in enumerate(tables, 1)]
    parts += [f"u AS ({_UPDATE_COUNTERS.format(parameter=len(tables) + 1)})"] if counters else []
    return f"WITH {', '.join(parts)} SELECT 1".encode()


def _counter_row(counter: Counter) -> Row:
    return {
        "id": counter.id,
        "limit_": counter.limit,
        "reserved": counter.reserved,
        "spent": counter.spent,
        "overrun": counter.overrun,
    }


_COUNTER_COLUMNS = (
    "id",
    "organization_id",
    "limit_nano_usd",
    "reserved_nano_usd",
    "spent_nano_usd",
    "overrun_nano_usd",
)
_BEGIN = b"""
WITH opened AS (DELETE FROM audit_openrequest WHERE id = ANY($1::uuid[]) RETURNING id),
held AS (
    DELETE FROM policies_reservation WHERE request_id = ANY($2::uuid[])
    RETURNING request_id, budget_id, amount_nano_usd
)
SELECT json_build_object(
    'now', now(),
    'versions', COALESCE(
        (SELECT json_object_agg(scope, version) FROM orgs_configversion WHERE scope = ANY($3::uuid[])), '{}'
    ),
    'opened', COALESCE((SELECT json_agg(id) FROM opened), '[]'),
    'held', COALESCE((SELECT json_agg(json_build_array(request_id, budget_id, amount_nano_usd)) FROM held), '[]')
)
"""
_LOOK = b"""
SELECT json_build_object('now', now(), 'held', COALESCE(json_agg(json_build_array(request_id, budget_id)), '[]'))
FROM policies_reservation WHERE request_id = ANY($1::uuid[])
"""
_LOCKED = b"""
WITH free AS MATERIALIZED (
    SELECT id FROM policies_budget WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED
)
SELECT COALESCE(json_agg(id), '[]') FROM policies_budget
WHERE id = ANY($1::uuid[]) AND id NOT IN (SELECT id FROM free)
"""
_LOCK = b"""
SELECT COALESCE(json_agg(json_build_array(
    id, organization_id, limit_nano_usd, reserved_nano_usd, spent_nano_usd, overrun_nano_usd
)), '[]') FROM (SELECT * FROM policies_budget WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE) AS locked
"""
_UPDATE_COUNTERS = """
UPDATE policies_budget AS b
SET limit_nano_usd = v.limit_, reserved_nano_usd = v.reserved, spent_nano_usd = v.spent, overrun_nano_usd = v.overrun
FROM json_to_recordset(${parameter}::json)
    AS v(id uuid, limit_ bigint, reserved bigint, spent bigint, overrun bigint)
WHERE b.id = v.id
"""
