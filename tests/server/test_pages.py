"""The admin and the JSON API behind the ASGI server: a bounded number of threads, which no client can hold."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from tests.services.server import ServerProcess, fresh_database, tracebacks

pytestmark = pytest.mark.xdist_group("pages")  # one process, one set of servers

PAGE_THREADS = 2
READERS_JOURNAL_SWEEPER_READINESS = 4 + 1 + 1 + 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: None) -> Iterator[ServerProcess]:
    environment: dict[str, str | None] = {"PAGE_THREADS": str(PAGE_THREADS)}
    if os.environ["DATABASE_URL"].startswith("postgres"):
        environment["DATABASE_URL"] = fresh_database()
    running = ServerProcess(tmp_path_factory.mktemp("pages"), environment).start()
    yield running
    running.stop()
    assert tracebacks(running.log.read_text()) == []


def test_a_busy_admin_holds_a_bounded_number_of_connections(server: ServerProcess, postgres_only: None) -> None:
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}

    def ask(_: int) -> int:
        return httpx.get(f"{server.url}/v1/admin/audit-logs", headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(40) as clients:
        assert set(clients.map(ask, range(200))) == {200}
    url = server.environment()["DATABASE_URL"].replace("postgres://", "postgresql://", 1)
    with psycopg.connect(url) as connection:
        held = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert held is not None
    assert held[0] <= PAGE_THREADS + READERS_JOURNAL_SWEEPER_READINESS


def test_clients_with_slow_bodies_hold_no_thread(server: ServerProcess) -> None:
    with ExitStack() as slow:
        for _ in range(PAGE_THREADS * 3):
            sock = slow.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sock.sendall(b"POST /admin/login/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nuser")
        assert httpx.get(f"{server.url}/admin/login/", timeout=10).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /admin/login/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nuser")
    assert httpx.get(f"{server.url}/admin/login/", timeout=10).status_code == 200


def test_a_body_in_pieces_arrives_whole(server: ServerProcess) -> None:
    pieces = (piece for piece in (b'{"name": "in ', b'pieces"}'))
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}", "content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/admin/organizations", content=pieces, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["name"]) == (201, "in pieces")


@pytest.mark.parametrize("path", ["/v1/admin/keys", "/admin/login/"])
def test_a_body_over_the_limit_is_a_413(server: ServerProcess, path: str) -> None:
    answer = httpx.post(f"{server.url}{path}", content=b"x" * (11 * 1024 * 1024), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "INVALID_REQUEST")


def test_bytes_that_a_query_may_not_hold_are_no_failure(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"GET /admin/login/?next=\xff\xfe HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert sock.recv(100).split(b" ")[1] in (b"200", b"400")


def test_a_header_cannot_pose_as_another_by_underscores(server: ServerProcess) -> None:
    url = f"{server.url}/metrics"
    assert httpx.get(url, headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    assert httpx.get(url, headers={"X_Forwarded_For": "192.0.2.1"}).status_code == 200
