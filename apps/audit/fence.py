"""The fence between organizations in the database, from this side: whose rows are asked for, and as which role.

PostgreSQL shows a connection the rows of its scope (`apps.audit.operations.Fenced`): the setting ``lcp.scope`` holds
the ids of organizations and of the person who asks, or ``*``. Without it a connection sees no row. What a thread asks
for stands in a context variable here, and `apps.audit.postgresql` says it to the database before the next statement:
what a connection was told for an earlier request can never hold for a later one.

    server   pages and the API: bound by the scope                              DATABASE_URL
    worker   the journal, readers, the sweeper, Celery, commands: everything    WORKER_DATABASE_URL
    owner    migrates and makes partitions; PostgreSQL binds no owner           MIGRATION_DATABASE_URL

One URL may serve for several of them. SQLite has no such fence.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

SETTING = "lcp.scope"
NOTHING, EVERYTHING = "", "*"
_WHO = ("USER", "PASSWORD", "HOST", "PORT")

_scope: ContextVar[str] = ContextVar("scope", default=NOTHING)


def scope() -> str:
    """Return whose rows are asked for now, as the database's setting has it."""
    return _scope.get()


def scope_of(ids: Iterable[UUID]) -> str:
    """Return the scope of some organizations, and of the person who asks."""
    return ",".join(sorted(map(str, ids)))


def enter(wanted: str) -> None:
    """Ask for the rows of ``wanted`` from now on, until what surrounds this ends."""
    _scope.set(wanted)


@contextmanager
def within(wanted: str) -> Generator[None, None, None]:
    """Ask for the rows of ``wanted`` for a while."""
    token = _scope.set(wanted)
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def everything() -> Generator[None, None, None]:
    """Ask for everybody's rows for a while, as a context or around a function: to find out who asks, and no more."""
    with within(EVERYTHING):
        yield


def stream_within(wanted: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give the pieces of an answer, each of them made in the scope of the request, which has ended by then."""
    rest = iter(pieces)
    while True:
        with within(wanted):
            piece = next(rest, None)
        if piece is None:
            return
        yield piece


# --- As whom


def work_across_organizations() -> None:
    """Have this thread speak as the worker from now on. Nothing where it does already."""
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor == "postgresql" and connection.settings_dict.get("SCOPE") != EVERYTHING:
        connection.close()
        connections[DEFAULT_DB_ALIAS] = _connection(settings.WORKER_DATABASE, EVERYTHING)


@contextmanager
def working() -> Generator[None, None, None]:
    """Have this thread speak as the worker for a while."""
    with _speaking(settings.WORKER_DATABASE, EVERYTHING):
        yield


@contextmanager
def owning() -> Generator[None, None, None]:
    """Have this thread speak as the owner for a while; where no owner is named, as before."""
    if settings.MIGRATION_DATABASE is None:
        yield
        return
    with _speaking(settings.MIGRATION_DATABASE, EVERYTHING):
        yield


@contextmanager
def serving() -> Generator[None, None, None]:
    """Have this thread speak as the server for a while."""
    with _speaking(None, None):
        yield


@contextmanager
def _speaking(who: dict[str, Any] | None, fixed: str | None) -> Generator[None, None, None]:
    before = connections[DEFAULT_DB_ALIAS]
    if before.vendor != "postgresql":
        yield
        return
    own = connections[DEFAULT_DB_ALIAS] = _connection(who, fixed)
    try:
        yield
    finally:
        own.close()
        connections[DEFAULT_DB_ALIAS] = before


def _connection(who: dict[str, Any] | None, fixed: str | None) -> BaseDatabaseWrapper:
    """Make a connection to the one database that everybody speaks to, as somebody; ``fixed``: in that scope for good.

    It is opened by its first statement.
    """
    config = {**connections.settings[DEFAULT_DB_ALIAS], "SCOPE": fixed}
    if who:
        config |= {name: who[name] for name in _WHO}
        config["OPTIONS"] = {**config["OPTIONS"], **who.get("OPTIONS", {})}
    wrapper: BaseDatabaseWrapper = load_backend(config["ENGINE"]).DatabaseWrapper(config, DEFAULT_DB_ALIAS)
    return wrapper
