"""The admin and the JSON API behind the ASGI server: a bounded number of threads, which no client can hold."""

import asyncio
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest

from controlplane.pages import Pages
from tests.services.server import ServerProcess, fresh_database, tracebacks

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


def test_a_client_that_leaves_a_stream_of_the_playground_is_not_waited_for(server: ServerProcess) -> None:
    demo = server.demo
    with httpx.Client(base_url=server.url, timeout=30, follow_redirects=True) as browser:
        developer = next(user for user in demo["users"] if user["role"] == "developer")
        log_in(browser, developer["username"], developer["password"])
        page = browser.get("/admin/playground/").text
        said = {
            "csrfmiddlewaretoken": token_of(page),
            "application": demo["application"],
            "model": "sim-stream-20000",
            "message": "x",
            "max_tokens": "50000",
            "stream": "on",
        }
        for _ in range(PAGE_THREADS * 2):  # each would hold a thread for minutes
            with browser.stream("POST", "/admin/playground/ask/", data=said) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream"), answer.read()
                assert next(answer.iter_lines()).startswith("data: ")
            record = record_of(server, answer.headers["x-request-id"])
            assert (record["status"], record["attempts"][-1].get("fault")) == ("cancelled", None)


def log_in(browser: httpx.Client, username: str, password: str) -> None:
    page = browser.get("/admin/login/").text
    said = {"csrfmiddlewaretoken": token_of(page), "username": username, "password": password, "next": "/admin/"}
    assert browser.post("/admin/login/", data=said).status_code == 200


def token_of(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found
    return found[1]


def record_of(server: ServerProcess, request_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}
    for _ in range(100):
        answer = httpx.get(f"{server.url}/v1/admin/audit-logs/{request_id}", headers=headers, timeout=30)
        if answer.status_code == 200:
            return dict(answer.json())
        time.sleep(0.05)
    pytest.fail("There is no record.")


def test_an_answer_that_cannot_be_sent_on_holds_no_thread() -> None:
    """A thread hands its pieces over through a queue of ten: one that nobody empties would hold it for ever."""

    def many_pieces(environment: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"piece"] * 100

    async def ask(pages: Pages, send: Any) -> None:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            try:
                return next(messages)
            except StopIteration:
                await asyncio.Event().wait()
                raise

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        await asyncio.wait_for(pages(scope, receive, send), 10)

    async def broken(message: dict[str, Any]) -> None:
        raise BrokenPipeError

    received: list[dict[str, Any]] = []

    async def whole(message: dict[str, Any]) -> None:
        received.append(message)

    async def both() -> None:
        pages = Pages(many_pieces, 1)
        await ask(pages, broken)
        await ask(pages, whole)
        pages.close()

    asyncio.run(both())
    assert b"".join(message.get("body", b"") for message in received) == b"piece" * 100
