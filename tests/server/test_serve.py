"""``manage.py serve`` as its users meet it: the first run, the second, a refusal in one line, the end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.services.server import ROOT, ServerProcess, empty_database, fresh_database

BARE = {"REDIS_URL": None, "DATABASE_URL": None}


def chat(server: ServerProcess, model: str = "sim-echo", **fields: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"Authorization": f"Bearer {server.demo['api_key']}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def audit(server: ServerProcess, **filters: str) -> list[dict]:
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}
    return httpx.get(f"{server.url}/v1/admin/audit-logs", params=filters, headers=headers).json()["results"]


def refusal(folder: Path, **environment: str | None) -> str:
    server = ServerProcess(folder, {**BARE, **environment})
    done = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=ROOT,
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


@dataclass
class FirstRun:
    """What came of a first run, the answer to the line it printed among it."""

    server: ServerProcess
    curl_answer: str
    recorded: list[str]
    exit_code: int


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    server = ServerProcess(tmp_path_factory.mktemp("first"), BARE).start()
    line = next(line for line in server.log.read_text().splitlines() if line.startswith("curl "))
    answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
    recorded = [entry["status"] for entry in audit(server)]
    return FirstRun(server, answer, recorded, server.stop())


@pytest.fixture
def later_run(first_run: FirstRun, tmp_path: Path) -> ServerProcess:
    """A server, not started yet, with a copy of what the first run left."""
    shutil.copytree(first_run.server.folder / "data", tmp_path / "data")
    shutil.copy(first_run.server.folder / "demo.json", tmp_path)
    return ServerProcess(tmp_path, BARE)


def test_the_first_run_prints_a_curl_line_that_works_as_printed(first_run: FirstRun) -> None:
    assert "Hello, control plane!" in first_run.curl_answer
    assert first_run.recorded == ["success"]
    assert first_run.exit_code == 0


def test_the_demo_file_holds_what_outside_tools_need(first_run: FirstRun) -> None:
    server, demo = first_run.server, first_run.server.demo
    assert demo["base_url"] == f"{server.url}/v1"
    assert demo["admin_url"] == f"{server.url}/admin/"
    assert {user["role"] for user in demo["users"]} == {"superadmin", "admin", "developer", "auditor"}
    assert set(demo) == {"base_url", "admin_url", "api_key", "admin_api_key", "organization", "application", "users"}


def test_a_second_run_keeps_all_data(first_run: FirstRun, later_run: ServerProcess) -> None:
    later_run.start()
    try:
        assert later_run.demo["api_key"] == first_run.server.demo["api_key"]
        assert later_run.demo["base_url"] == f"{later_run.url}/v1"
        chat(later_run)
        assert len(audit(later_run)) == 2
    finally:
        later_run.stop()


def test_it_runs_on_postgresql_and_redis_with_two_processes(tmp_path: Path, postgres_only: None) -> None:
    server = ServerProcess(tmp_path, {"DATABASE_URL": empty_database(), "WORKERS": "2"}).start()
    try:
        assert all(chat(server).status_code == 200 for _ in range(6))
        assert len(audit(server)) == 6
        metrics = httpx.get(f"{server.url}/metrics").text
        assert (
            'lcp_requests_total{code="",endpoint="chat.completions",provider="simulated",status="success"} 6.0'
            in metrics
        )
    finally:
        assert server.stop() == 0


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in refusal(tmp_path, PORT=port)


def test_an_unreachable_database_is_one_clear_line_without_its_password(tmp_path: Path) -> None:
    line = refusal(tmp_path, DATABASE_URL="postgres://me:hunter2@127.0.0.1:9/nowhere")
    assert "127.0.0.1:9/nowhere" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense-hunter2"),
        ("DATABASE_URL", "mysql://me:hunter2@127.0.0.1/x"),
        ("REDIS_URL", "http://me:hunter2@127.0.0.1/x"),
        ("PORT", "99999"),
        ("PORT", "hunter2"),
        ("WORKERS", "hunter2"),
        ("BODY_DEADLINE_SECONDS", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
        ("DATA_DIR", "/dev/null/data"),
        ("DEMO_FILE", "/dev/null/demo.json"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_clear_line(tmp_path: Path, name: str, value: str) -> None:
    line = refusal(tmp_path, **{name: value})
    assert name in line
    assert "hunter2" not in line


PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "x" * 60,
    "KEY_PEPPERS": "a:" + "A" * 43 + "=",
    "ENCRYPTION_KEYS": "a:" + "A" * 43 + "=",
    "ALLOWED_HOSTS": "llm.example.com",
}


@pytest.mark.parametrize(
    "missing",
    [("SECRET_KEY",), ("KEY_PEPPERS", "ALLOWED_HOSTS", "DATABASE_URL"), ("ENCRYPTION_KEYS",)],
    ids=", ".join,
)
def test_a_missing_secret_in_production_is_one_clear_line(tmp_path: Path, missing: tuple[str, ...]) -> None:
    given = {**PRODUCTION, "DATABASE_URL": os.environ["DATABASE_URL"], **dict.fromkeys(missing)}
    line = refusal(tmp_path, **given)
    assert [name for name in missing if name not in line] == []


def test_a_malformed_secret_is_one_clear_line_that_does_not_show_it(tmp_path: Path) -> None:
    line = refusal(tmp_path, **{**PRODUCTION, "KEY_PEPPERS": "a:c2hvcnQ="})
    assert "KEY_PEPPERS" in line
    assert "c2hvcnQ" not in line


def test_unapplied_migrations_in_production_are_one_clear_line(tmp_path: Path, postgres_only: None) -> None:
    assert "migrate" in refusal(tmp_path, **PRODUCTION, DATABASE_URL=empty_database())


def test_the_simulated_provider_is_refused_in_production(tmp_path: Path, postgres_only: None) -> None:
    line = refusal(tmp_path, **PRODUCTION, DATABASE_URL=fresh_database(), SIMULATED_PROVIDER="true")
    assert "SIMULATED_PROVIDER" in line


def test_a_term_signal_while_streaming_leaves_one_record_and_ends_in_time(later_run: ServerProcess) -> None:
    server = later_run.start()
    body = {"model": "sim-stream-5000", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {server.demo['api_key']}"}
    started = threading.Event()

    def read_along() -> None:
        try:
            with httpx.stream(
                "POST", f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60
            ) as answer:
                for _ in answer.iter_lines():
                    started.set()
        except httpx.HTTPError:
            pass

    reader = threading.Thread(target=read_along)
    reader.start()
    assert started.wait(20)
    assert server.stop(seconds=10) == 0
    reader.join(10)
    server.start()
    try:
        entry, *_ = audit(server)
        assert entry["status"] == "interrupted"
        assert entry["tokens_output"] > 0
        assert float(entry["cost_usd"]) > 0
        assert [entry["model"] for entry in audit(server)].count("sim-stream-5000") == 1
    finally:
        server.stop()


def test_a_killed_process_leaves_interrupted_records_once_the_sweeper_has_come(later_run: ServerProcess) -> None:
    nobody = "redis://127.0.0.1:1/0"  # a server sweeps by itself, whether or not there is a Celery
    quick = {**BARE, "REQUEST_DEADLINE_SECONDS": "2", "SWEEP_SECONDS": "0.5", "CELERY_BROKER_URL": nobody}
    server = ServerProcess(later_run.folder, quick).start()
    threads = [threading.Thread(target=_hang, args=(server,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    server.kill()
    for thread in threads:
        thread.join(10)
    server.start()
    try:
        deadline = time.monotonic() + 20
        while len(audit(server, status="interrupted")) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(audit(server, status="interrupted")) == len(threads)
    finally:
        server.stop()


def _hang(server: ServerProcess) -> None:
    with suppress(httpx.HTTPError):
        chat(server, "sim-slow-60000")


def test_the_process_group_of_make_run_ends_on_a_term_signal(later_run: ServerProcess) -> None:
    if not (ROOT / ".venv" / ".production").exists():
        pytest.skip("needs the environment that make sets up")
    server = later_run
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=server.environment(), stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 60
    while not server._is_ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server._is_ready(), server.log.read_text()
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(10)
    assert not server._is_ready()
