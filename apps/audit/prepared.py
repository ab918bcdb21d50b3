"""Statements that one thread runs thousands of times a minute on PostgreSQL: prepared once for each connection.

Django's cursors suit any statement, and pay for it: each is parsed and planned anew, and running it takes the
interpreter's lock a dozen times, for which the event loop's thread competes. Here libpq sends a prepared statement
and waits for its result in one call that holds no lock.
"""

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_ANSWERED = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_names: "WeakKeyDictionary[psycopg.Connection[Any], dict[bytes, bytes]]" = WeakKeyDictionary()
_numbers = itertools.count()

OUTDATED = frozenset({"26000", "0A000"})
"""States of a prepared statement that the server forgot or that a migration changed; it is prepared anew afterwards."""


def run_prepared(connection: BaseDatabaseWrapper, statement: bytes, parameters: Sequence[bytes]) -> bytes | None:
    """Run ``statement`` and return the first column of its first row as text; ``None`` without one.

    Its parameters are ``$1`` and so on, as text. Begins a transaction where Django has announced one, as a cursor
    would. Raises Django's `DatabaseError`s.
    """
    with connection.wrap_database_errors:
        driver: psycopg.Connection[Any] = connection.connection
        if not driver.autocommit and driver.pgconn.transaction_status == TransactionStatus.IDLE:
            _answer(driver, lambda: driver.pgconn.exec_(b"BEGIN"))
        name = _names.setdefault(driver, {}).get(statement) or _prepare(driver, statement)
        try:
            result = _answer(driver, lambda: driver.pgconn.exec_prepared(name, parameters))
        except psycopg.Error as error:
            if error.sqlstate in OUTDATED:
                _names.pop(driver, None)
            raise
    return result.get_value(0, 0) if result.ntuples else None


def _prepare(driver: "psycopg.Connection[Any]", statement: bytes) -> bytes:
    name = b"lcp_%d" % next(_numbers)
    _answer(driver, lambda: driver.pgconn.prepare(name, statement))
    _names[driver][statement] = name
    return name


def _answer(driver: "psycopg.Connection[Any]", ask: Any) -> PGresult:
    if driver.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError("The connection is lost.")
    result: PGresult = ask()
    if result.status in _ANSWERED:
        return result
    if driver.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError("The connection is lost.")
    raise psycopg.errors.error_from_result(result)
