"""The database goes away and comes back: nothing is called unrecorded, nothing is lost, nobody restarts anything."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.mock_upstream import MockUpstream
from tests.services.postgres import EmbeddedPostgres
from tests.services.server import ServerProcess


class Installation:
    """A server with a PostgreSQL of its own that a test may stop."""

    def __init__(self, folder: Path) -> None:
        self.upstream = MockUpstream()
        self.upstream.start()
        self._database = folder / "postgres"
        self.postgres = EmbeddedPostgres(self._database)
        environment: dict[str, str | None] = {
            "DATABASE_URL": self.postgres.start(),
            "OPENAI_BASE_URL": self.upstream.base_url,
            "OPENAI_API_KEY": "x",
        }
        self.server = ServerProcess(folder, environment).start()

    def chat(self, text: str) -> httpx.Response:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
        headers = {"Authorization": f"Bearer {self.server.demo['api_key']}"}
        return httpx.post(f"{self.server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    def records(self) -> list[str]:
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        answer = httpx.get(f"{self.server.url}/v1/admin/audit-logs", headers=headers, timeout=10)
        return [entry["status"] for entry in answer.json()["results"]]

    def restart_postgres(self) -> None:
        self.postgres = EmbeddedPostgres(self._database)
        self.postgres.start()

    @contextmanager
    def frozen_postgres(self) -> Iterator[None]:
        """Stop every process of the database, as a machine that hangs would, and let them go on afterwards."""
        pids = processes_of(self._database)
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        self.server.stop()
        self.postgres.stop()
        self.upstream.stop()


@pytest.fixture
def installation(postgres_only: None) -> Iterator[Installation]:
    # PostgreSQL does not run as root: the wheel gives it a user of its own, who must reach the folder.
    with tempfile.TemporaryDirectory(prefix="lcp-outage-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        running = Installation(folder)
        yield running
        running.stop()


def test_without_the_database_requests_are_refused_and_the_provider_is_not_called(installation: Installation) -> None:
    assert installation.chat("one").status_code == 200
    installation.postgres.stop()
    refused = installation.chat("two")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) >= 1
    assert httpx.get(f"{installation.server.url}/health").status_code == 200
    assert httpx.get(f"{installation.server.url}/health/ready").status_code == 503
    assert len(installation.upstream.calls) == 1
    installation.restart_postgres()
    wait_until(lambda: installation.chat("three").status_code == 200)
    wait_until(lambda: installation.records().count("success") == 2)
    assert len(installation.upstream.calls) == installation.records().count("success")


def test_health_answers_while_a_frozen_database_holds_every_thread(installation: Installation) -> None:
    url, headers = installation.server.url, {"Authorization": f"Bearer {installation.server.demo['admin_api_key']}"}
    assert httpx.get(f"{url}/health/ready").status_code == 200

    def ask(_: int) -> int:
        return httpx.get(f"{url}/v1/admin/audit-logs", headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(20) as clients:
        clients.map(ask, range(20))
        with installation.frozen_postgres():
            waiting = clients.map(ask, range(20))
            for _ in range(2):
                assert httpx.get(f"{url}/health", timeout=10).status_code == 200
                assert httpx.get(f"{url}/health/ready", timeout=10).status_code == 503
        assert set(waiting) <= {200, 503}
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)


def test_what_was_under_way_when_the_database_went_is_answered_and_recorded_later(installation: Installation) -> None:
    answers: list[int] = []
    calling = threading.Thread(target=lambda: answers.append(installation.chat("mock:delay=2").status_code))
    calling.start()
    installation.upstream.wait_for_calls(1)
    installation.postgres.stop()
    calling.join(20)
    assert answers == [200]
    installation.restart_postgres()
    wait_until(lambda: installation.records() == ["success"])


def processes_of(database: Path) -> list[int]:
    """Return the server's process and all its children."""
    server = int((database / "postmaster.pid").read_text().split()[0])
    children = subprocess.run(["pgrep", "-P", str(server)], capture_output=True, text=True, check=False).stdout.split()
    return [server, *map(int, children)]


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.2)
    assert condition()
