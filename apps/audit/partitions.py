"""The monthly partitions of the audit's tables on PostgreSQL, made well ahead of the time they are for."""

from datetime import UTC, datetime

from django.db import connections, transaction

from apps.audit.uuid7 import first_id_at

TABLES = ("audit_requestrecord", "audit_requesttext")
MONTHS_AHEAD = 3


def ensure_partitions(using: str = "default") -> list[str]:
    """Create the partitions of this month and the next ones that are missing; return their names. Safe to repeat."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return []
    created = []
    for table in TABLES:
        for start in _months(datetime.now(UTC)):
            name, bounds = _partition(table, start)
            with transaction.atomic(using=using), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext('lcp.partitions'))")
                cursor.execute("SELECT to_regclass(%s)", [name])
                if cursor.fetchone()[0] is None:
                    cursor.execute(f'CREATE TABLE "{name}" PARTITION OF "{table}" FOR VALUES FROM {bounds}')
                    # Through the table its fence holds; to who asks for the partition by name it shows nothing.
                    cursor.execute(f'ALTER TABLE "{name}" ENABLE ROW LEVEL SECURITY')
                    created.append(name)
    return created


def _months(now: datetime) -> list[datetime]:
    months = [now.year * 12 + now.month - 1 + ahead for ahead in range(MONTHS_AHEAD + 1)]
    return [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in months]


def _partition(table: str, start: datetime) -> tuple[str, str]:
    end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)
    return f"{table}_{start:%Y_%m}", f"('{first_id_at(start)}') TO ('{first_id_at(end)}')"
