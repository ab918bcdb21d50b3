"""Several statements that see the database as of one moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def snapshot() -> Iterator[None]:
    """Let every statement see the database as of one moment, read only, and stand in nobody's way.

    Within a transaction that is under way, the statements see what that sees.
    """
    if connection.in_atomic_block or _is_under_way_on_sqlite():
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        yield from _on_sqlite()


def _is_under_way_on_sqlite() -> bool:
    return connection.vendor == "sqlite" and getattr(connection.connection, "in_transaction", False)


def _on_sqlite() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN DEFERRED")  # Django's own would wait for writers and keep them out
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
