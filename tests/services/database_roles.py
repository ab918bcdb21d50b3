"""The roles of a server and of its workers on the test run's PostgreSQL: they own nothing, so the fence holds for them.

Tests set the scene and look at what came of it as the owner. Requests of Django's test client are served as the server
(`AsTheServer`), and so is whatever a server process serves.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

SERVER, WORKER = "lcp_test_server", "lcp_test_worker"
PASSWORD = "not-a-secret"
MADE = "TEST_DATABASE_ROLES"
"""The environment's name for whether the roles are there: not every server lets its user make some."""


def make_roles(server_url: str) -> None:
    """Make both roles on the test run's server, and note it in the environment."""
    with psycopg.connect(server_url.replace("postgres://", "postgresql://", 1), autocommit=True) as owner:
        there = {name for (name,) in owner.execute("SELECT rolname FROM pg_roles").fetchall()}
        try:
            for name in {SERVER, WORKER} - there:
                owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'".encode())
        except psycopg.errors.InsufficientPrivilege:
            return
    os.environ[MADE] = "yes"


def there_are_roles() -> bool:
    """Whether this run has the roles, and a database that knows any."""
    return connection.vendor == "postgresql" and MADE in os.environ


def grant_roles() -> None:
    """Grant them what a server and its workers need in this test process's database."""
    from controlplane import database_roles

    if there_are_roles():
        database_roles.run(database_roles.grants(SERVER, WORKER))


def as_role(url: str, role: str) -> str:
    """Return the same database, reached as another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))


def addresses(owner_url: str) -> dict[str, str]:
    """Return the variables with which a process serves a database as it should: each part of it in its own role."""
    if MADE not in os.environ or not owner_url.startswith("postgres"):
        return {"DATABASE_URL": owner_url}
    return apart(owner_url)


def apart(owner_url: str) -> dict[str, str]:
    """Return the three addresses of a database; a server in development makes the roles."""
    return {
        "DATABASE_URL": as_role(owner_url, SERVER),
        "WORKER_DATABASE_URL": as_role(owner_url, WORKER),
        "MIGRATION_DATABASE_URL": owner_url,
    }


class AsTheServer:
    """Serves a request of the test client on a connection of the server's role, one for each thread."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with as_the_server():
            return self._get_response(request)


_own = threading.local()


@contextmanager
def as_the_server() -> Iterator[None]:
    """Speak to the database as the server does, if there are roles; its connection is kept for the next time."""
    if not there_are_roles():
        yield
        return
    before = connections[DEFAULT_DB_ALIAS]
    if not hasattr(_own, "connection"):
        config = {**connections.settings[DEFAULT_DB_ALIAS], "USER": SERVER, "PASSWORD": PASSWORD}
        _own.connection = type(before)(config, DEFAULT_DB_ALIAS)
    connections[DEFAULT_DB_ALIAS] = _own.connection
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS] = before


def serve_as_the_server() -> None:
    """Have the test client's requests served so in this process, from now on."""
    if there_are_roles():
        settings.MIDDLEWARE.insert(0, f"{__name__}.{AsTheServer.__name__}")
