"""The product as its users start it: ``manage.py serve`` in a process group of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.services.database_roles import addresses
from tests.services.postgres import create_database
from tests.services.redis import free_port

ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """One server. Its environment is this process's, changed by what is given; ``None`` removes a variable."""

    def __init__(self, folder: Path, environment: dict[str, str | None] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60) -> "ServerProcess":
        """Start and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "serve"],
                cwd=ROOT,
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"The server ended:\n{self.log.read_text()[-4000:]}")
            if self._is_ready():
                return self
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"The server was not ready in {seconds} s:\n{self.log.read_text()[-4000:]}")

    def environment(self) -> dict[str, str]:
        """Return the variables the server is started with."""
        own: dict[str, str | None] = {
            "PORT": str(self.port),
            "DATA_DIR": str(self.folder / "data"),
            "DEMO_FILE": str(self.folder / "demo.json"),
            "COVERAGE_PROCESS_START": None,
            **self._environment,
        }
        merged = {**os.environ, **{name: value for name, value in own.items() if value is not None}}
        left = {name: value for name, value in merged.items() if own.get(name, "") is not None}
        if "DATABASE_URL" in left and "WORKER_DATABASE_URL" not in left:
            left |= addresses(left["DATABASE_URL"])
        return left

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def demo(self) -> dict[str, Any]:
        """Return what the first run wrote for outside tools."""
        return dict(json.loads((self.folder / "demo.json").read_text()))

    def stop(self, seconds: float = 15) -> int:
        """Ask the process group to end; return its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End the process group at once, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


def tracebacks(log: str) -> list[str]:
    """Return the lines of a server's log that hold a traceback, or belong to one that was not written as JSON."""
    lines = log.splitlines()
    plain = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
    return [line for line in lines if '"traceback"' in line] + [
        line for number in plain for line in lines[max(number - 2, 0) : number + 40]
    ]


TABLES = "TEST_DATABASE_WITH_TABLES"
"""The environment's name for a database that is copied rather than migrated: a copy takes a tenth of the time."""


def keep_tables() -> None:
    """Have `fresh_database` copy the database that the tests of this process are about to use, as it is now."""
    from django.db import connection, connections

    if connection.vendor == "postgresql":
        name = str(connection.settings_dict["NAME"])
        connections.close_all()
        create_database(os.environ["DATABASE_URL"], f"tables_of_{name}", name)
        os.environ[TABLES] = f"tables_of_{name}"


def fresh_database() -> str:
    """Create a database without rows on the test run's server; return its URL."""
    return create_database(os.environ["DATABASE_URL"], _a_name(), os.environ.get(TABLES, "template1"))


def empty_database() -> str:
    """Create a database without tables on the test run's server; return its URL."""
    return create_database(os.environ["DATABASE_URL"], _a_name())


def _a_name() -> str:
    return f"server_{uuid4().hex}"
