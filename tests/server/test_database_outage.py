"""The database goes away and comes back: nothing is called unrecorded, nothing is lost, nobody restarts anything."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from django.db import connection

from tests.mock_upstream import MockUpstream
from tests.services import accounts
from tests.services.postgres import EmbeddedPostgres
from tests.services.receiver import Receiver
from tests.services.server import ServerProcess

_NO_ROOM = """
CREATE OR REPLACE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_room();
"""
_UNWANTED_ALERT = """
INSERT INTO audit_alert (id, timestamp, kind, state, topic, title, text, details, due_at)
VALUES (%s, now(), 'key_expiring', 'raised', %s, 'A title', 'A text', '{}', now()) RETURNING id
"""


class Installation:
    """A server with a PostgreSQL of its own that a test may stop."""

    def __init__(self, folder: Path) -> None:
        self.upstream = MockUpstream()
        self.upstream.start()
        self._database = folder / "postgres"
        self.postgres = EmbeddedPostgres(self._database)
        self.database_url = self.postgres.start()
        environment: dict[str, str | None] = {
            "DATABASE_URL": self.database_url,
            "OPENAI_BASE_URL": self.upstream.base_url,
            "OPENAI_API_KEY": "x",
            "ALERT_SECONDS": "0.2",
        }
        self.server = ServerProcess(folder, environment).start()

    def chat(self, text: str, key: str = "api_key") -> httpx.Response:
        body = {"model": "gpt-4o-mini", "user": text, "messages": [{"role": "user", "content": text}]}
        headers = {"Authorization": f"Bearer {self.server.demo[key]}"}
        return httpx.post(f"{self.server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    def audit_logs(self) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        return httpx.get(f"{self.server.url}/v1/admin/audit-logs", headers=headers, timeout=10)

    def recorded(self) -> dict[str, str]:
        """Return the status of each recorded request, by its text."""
        return {text: status for text, (status, *_) in accounts.recorded(self.database_url).items()}

    def wait_until_it_serves(self, seconds: float = 20) -> None:
        """Ask until there is an answer, each time with a text of its own: a refusal has its record too."""
        wait_until(lambda: self.chat(f"serving {uuid4()}").status_code == 200, seconds)

    @contextmanager
    def under_way(self, text: str) -> Iterator[list[int]]:
        """Have the provider working at a request; the status of its answer comes into the list, if there is one."""
        answers: list[int] = []
        calling = threading.Thread(target=give_up, args=(lambda: answers.append(self.chat(text).status_code),))
        calling.start()
        wait_until(lambda: self.upstream.calls_with(text))
        yield answers
        calling.join(20)

    @contextmanager
    def telling_of_the_journal(self, url: str) -> Iterator[None]:
        """Have the platform's alert that the journal spools sent to an address."""
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        body = {"name": f"on call {uuid4()}", "channel": "webhook", "kinds": ["journal_spooling"], "url": url}
        address = f"{self.server.url}/v1/admin/alert-destinations"
        answer = httpx.post(address, json={**body, "organization": None}, headers=headers)
        answer.raise_for_status()
        for _ in range(2):  # the first may have ended a turn that began before
            self._see_a_turn_of_the_teller()
        yield
        httpx.delete(f"{address}/{answer.json()['id']}", headers=headers).raise_for_status()

    def _see_a_turn_of_the_teller(self) -> None:
        """Wait until it has handed out an alert that nobody wants, after having read who is to hear of the journal."""
        (alert,) = accounts.read(self.database_url, _UNWANTED_ALERT, uuid4(), str(uuid4()))
        handed_out = "SELECT 1 FROM audit_alert WHERE id = %s AND told_at IS NOT NULL"
        wait_until(lambda: accounts.read(self.database_url, handed_out, *alert))

    def restart_postgres(self) -> None:
        self.postgres = EmbeddedPostgres(self._database)
        self.postgres.start()

    @contextmanager
    def stopped_postgres(self, during: str) -> Iterator[list[int]]:
        """Stop the database while the provider works at a request, until the end; give the status of its answer."""
        with self.under_way(during) as answers:
            self.postgres.stop()
        try:
            yield answers
        finally:
            self.restart_postgres()

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

    def add_cap(self) -> None:
        """Have every request of the demo organization reserve and settle."""
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        cap = {"kind": "cost_cap", "name": "cap", "config": {"limit_usd": "1000", "per": "total"}}
        body = {**cap, "organization": self.server.demo["organization"]}
        httpx.post(f"{self.server.url}/v1/admin/policies", json=body, headers=headers).raise_for_status()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse every write, as a standby does, or a server that was told to."""
        self._for_all("ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._for_all("ALTER SYSTEM SET default_transaction_read_only = off")

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fail every insert of the journal with the state of a full disk."""
        for table in ("audit_openrequest", "audit_requestrecord"):
            accounts.read(self.database_url, _NO_ROOM.format(table=table))
        try:
            yield
        finally:
            for table in ("audit_openrequest", "audit_requestrecord"):
                accounts.read(self.database_url, f"DROP TRIGGER no_room ON {table}")

    def add_up(self) -> bool:
        """Whether the provider's log, the records and the ledger agree."""
        differences = accounts.differences(self.database_url, self.upstream.calls)
        print(differences)  # shown where the test fails
        return not differences

    def _for_all(self, statement: str) -> None:
        url = self.database_url.replace("postgres://", "postgresql://", 1)
        with psycopg.connect(url, autocommit=True) as own:
            own.execute(statement)
            own.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        self.server.stop()
        self.postgres.stop()
        self.upstream.stop()


@pytest.fixture(scope="module")
def running(database: None) -> Iterator[Installation]:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    # PostgreSQL does not run as root: the wheel gives it a user of its own, who must reach the folder.
    with tempfile.TemporaryDirectory(prefix="lcp-outage-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        running = Installation(folder)
        running.add_cap()
        yield running
        running.stop()


@pytest.fixture
def installation(running: Installation) -> Iterator[Installation]:
    """The one installation; what a test left in it adds up."""
    running.wait_until_it_serves()
    yield running
    wait_until(running.add_up)


@pytest.fixture
def slow() -> str:
    """A text of this test alone, which the upstream answers after two seconds."""
    return f"mock:delay=2 {uuid4()}"


def test_without_the_database_requests_are_refused_and_the_provider_is_not_called(installation: Installation) -> None:
    one, two = str(uuid4()), str(uuid4())
    assert installation.chat(one).status_code == 200
    installation.postgres.stop()
    refused = installation.chat(two)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) >= 1
    assert httpx.get(f"{installation.server.url}/health").status_code == 200
    assert httpx.get(f"{installation.server.url}/health/ready").status_code == 503
    assert not installation.upstream.calls_with(two)
    installation.restart_postgres()
    installation.wait_until_it_serves()
    wait_until(lambda: {one, two} <= set(installation.recorded()))
    assert [installation.recorded()[text] for text in (one, two)] == ["success", "error"]


def test_health_answers_while_a_frozen_database_holds_every_thread(installation: Installation) -> None:
    url, headers = installation.server.url, {"Authorization": f"Bearer {installation.server.demo['admin_api_key']}"}
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)

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


def test_what_was_under_way_when_the_database_went_is_answered_and_recorded_later_and_people_are_told(
    installation: Installation, slow: str
) -> None:
    with Receiver() as receiver, installation.telling_of_the_journal(receiver.url):
        with installation.stopped_postgres(during=slow) as answers:
            assert answers == [200]
            (told,) = receiver.wait_for(1)[0].json["alerts"]
            assert (told["kind"], told["state"], told["details"]["records"]) == ("journal_spooling", "raised", 1)
        wait_until(lambda: installation.recorded().get(slow) == "success")
        (over,) = receiver.wait_for(2)[1].json["alerts"]
        assert (over["state"], over["details"]["raised_id"]) == ("resolved", told["id"])


def test_a_frozen_database_refuses_new_calls_keeps_what_was_under_way_and_lets_the_server_end(
    installation: Installation, slow: str
) -> None:
    refused, hanging = f"refused {uuid4()}", f"mock:hang=headers {uuid4()}"
    with installation.under_way(slow) as answers, installation.frozen_postgres():
        for key in ("api_key", "admin_api_key"):  # known to the process, and not
            answer = installation.chat(f"{refused} with the {key}", key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
        wait_until(lambda: answers == [200])
    installation.wait_until_it_serves(seconds=10)
    wait_until(installation.add_up)
    assert not installation.upstream.calls_with(refused)
    assert installation.recorded()[slow] == "success"

    with installation.under_way(hanging):
        with installation.frozen_postgres():
            pages = [threading.Thread(target=give_up, args=(installation.audit_logs,)) for _ in range(3)]
            for page in pages:
                page.start()
            assert installation.chat(f"{refused} again").status_code == 503
            assert installation.server.stop(seconds=10) == 0
        for page in pages:
            page.join(20)
    installation.server.start()
    wait_until(installation.add_up)
    assert installation.recorded()[hanging] == "interrupted"


@pytest.mark.parametrize("condition", ["read_only", "full_disk"])
def test_a_database_that_cannot_write_refuses_calls_and_gets_what_was_under_way_later(
    installation: Installation, condition: str, slow: str
) -> None:
    before, refused = f"before {uuid4()}", f"refused {uuid4()}"
    assert installation.chat(before).status_code == 200
    with installation.under_way(slow) as answers, getattr(installation, condition)():
        answer = installation.chat(refused)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
        wait_until(lambda: answers == [200])
        assert {before, refused, slow} & set(installation.recorded()) == {before}
    installation.wait_until_it_serves(seconds=10)
    wait_until(lambda: {before, refused, slow} <= set(installation.recorded()))
    assert installation.recorded()[slow] == "success"
    assert not installation.upstream.calls_with(refused)


def give_up(ask: Callable[..., object], *arguments: str) -> None:
    """Ask for something, whatever comes of it."""
    with suppress(httpx.HTTPError, ValueError, KeyError):
        ask(*arguments)


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
