"""A worker is killed with requests at every point of their way: none that reached the provider goes unrecorded.

Nothing in the product stops at a point for the test's sake. The upstream falls silent where it is told to, a pool of
few connections holds back what is not yet sent, and triggers of the test hold the database at the two commits.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.mock_upstream import MockUpstream
from tests.services import accounts
from tests.services.server import ServerProcess, fresh_database

HELD_IN_THE_DATABASE = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE TRIGGER hold_intent BEFORE INSERT ON audit_openrequest FOR EACH ROW
    WHEN (NEW.intent->>'end_user' LIKE 'before intent%') EXECUTE FUNCTION hold();
CREATE TRIGGER hold_settlement BEFORE INSERT ON audit_requestrecord FOR EACH ROW
    WHEN (NEW.end_user LIKE 'before settle%') EXECUTE FUNCTION hold();
"""
AT_THE_UPSTREAM = {
    "after send": ("mock:hang=headers", False),
    "first chunk": ("mock:words=9,after=1,hang=stream", True),
    "middle chunk": ("mock:words=9,after=5,hang=stream", True),
    "last chunk": ("mock:words=9,no_done=1,tail=600", True),
}
CONNECTIONS, WORKERS = 4, 2
NOT_YET_SENT = CONNECTIONS * WORKERS  # so many more than there are connections


class Killable:
    """A server of several workers that its supervisor replaces, under a cost cap."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.upstream = MockUpstream()
        self.upstream.start()
        self.database = fresh_database()
        environment: dict[str, str | None] = {
            "DATABASE_URL": self.database,
            "OPENAI_BASE_URL": self.upstream.base_url,
            "OPENAI_API_KEY": "x",
            "WORKERS": str(WORKERS),
            "PROVIDER_CONNECTIONS": str(CONNECTIONS),
            "PROVIDER_CONNECT_SECONDS": "60",
            "JOURNAL_WAIT_SECONDS": "30",
            "SWEEP_SECONDS": "0.5",
            **settings,
        }
        self.server = ServerProcess(folder, environment).start()
        cap = {"kind": "cost_cap", "name": "cap", "config": {"limit_usd": "1000", "per": "total"}}
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        body = {**cap, "organization": self.server.demo["organization"]}
        httpx.post(f"{self.server.url}/v1/admin/policies", json=body, headers=headers).raise_for_status()
        accounts.read(self.database, HELD_IN_THE_DATABASE)
        self._clients: list[threading.Thread] = []

    def send(self, user: str, text: str = "Hello", stream: bool = False) -> None:
        """Send a request and leave it to its fate."""
        client = threading.Thread(target=self._send, args=(user, text, stream), daemon=True)
        client.start()
        self._clients.append(client)

    def chat(self, user: str) -> int:
        return self._post({"user": user, "messages": [{"role": "user", "content": "Hello"}]}).status_code

    def workers(self) -> list[int]:
        found = subprocess.run(
            ["pgrep", "-P", str(self.server.pid), "-f", "spawn_main"], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def kill_workers(self) -> None:
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)
        for client in self._clients:
            client.join(20)

    def let_go(self) -> bool:
        """Hold nothing in the database any more. Raises `psycopg.Error` where a worker's statement is in the way."""
        accounts.read(
            self.database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        )
        accounts.read(self.database, "DROP FUNCTION IF EXISTS hold() CASCADE")
        return True

    def let_deadlines_pass(self) -> None:
        accounts.read(self.database, "UPDATE audit_openrequest SET deadline = now() - interval '1 minute'")

    def calls(self) -> set[str]:
        return {call.json["user"] for call in self.upstream.calls}

    def asleep(self) -> int:
        """How many of the server's statements a trigger holds."""
        ((count,),) = accounts.read(self.database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return int(count)

    def stop(self) -> None:
        self.server.kill()
        self.upstream.stop()

    def _send(self, user: str, text: str, stream: bool) -> None:
        with suppress(httpx.HTTPError):
            self._post({"user": user, "stream": stream, "messages": [{"role": "user", "content": text}]})

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.server.demo['api_key']}"}
        whole = {"model": "gpt-4o-mini", "max_tokens": 50, **body}
        return httpx.post(f"{self.server.url}/v1/chat/completions", json=whole, headers=headers, timeout=60)


@pytest.fixture
def killable(tmp_path: Path, postgres_only: None) -> Iterator[Killable]:
    running = Killable(tmp_path)
    yield running
    running.stop()


def test_killed_anywhere_each_request_that_reached_the_provider_has_one_record(killable: Killable) -> None:
    assert killable.chat("warm") == 200
    for user, (text, stream) in AT_THE_UPSTREAM.items():
        killable.send(user, text, stream)
    until(lambda: set(AT_THE_UPSTREAM) <= killable.calls())
    for number in range(NOT_YET_SENT):
        killable.send(f"after intent {number}", "mock:hang=headers")
    until(lambda: len(accounts.open_users(killable.database)) == len(AT_THE_UPSTREAM) + NOT_YET_SENT)
    unsent = accounts.open_users(killable.database) - killable.calls()
    assert unsent
    killable.kill_workers()
    until(lambda: len(killable.workers()) == WORKERS and killable.chat("between") == 200)
    killable.send("before settle")
    until(lambda: killable.asleep() == 1)
    killable.kill_workers()
    until(lambda: killable.asleep() == 0)
    killable.send("before intent")
    until(lambda: killable.asleep() == 1)
    killable.kill_workers()
    until(killable.let_go)
    until(lambda: len(killable.workers()) == WORKERS and killable.chat("after") == 200)

    killable.let_deadlines_pass()
    until(lambda: not accounts.open_users(killable.database))
    assert accounts.differences(killable.database, killable.upstream.calls) == []
    records = accounts.recorded(killable.database)
    assert "before intent" not in records
    assert "before intent" not in killable.calls()
    finished = {user for user, (status, _, _) in records.items() if status == "success"}
    assert {"warm", "after"} <= finished
    for user in (*AT_THE_UPSTREAM, *unsent, "before settle"):
        status, counted_by, cost = records[user]
        assert (status, counted_by) == ("interrupted", "worst_case")
        assert cost > records["warm"][2]


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError, psycopg.Error):
            if condition():
                return
        time.sleep(0.05)
    assert condition()
