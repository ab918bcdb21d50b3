"""``make bench``: what the whole path costs beside a bare pass-through, on one machine, in one run.

Every stage is on: key, policies, guardrails on prompt and answer, rate limits in Redis, two hard cost caps, the
journal on PostgreSQL with fsync. Load goes to this machine only and is bounded in time. CPU per request is the
figure to trust where load, upstream and server share few cores.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench import load
from bench.processes import Measured
from tests.services.database_roles import apart
from tests.services.postgres import EmbeddedPostgres
from tests.services.redis import EmbeddedRedis, free_port

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
IN_FLIGHT = (1, 16, 64)
STREAMS = 200
MESSAGES = [
    {"role": "system", "content": "You answer questions about cities, in two sentences, and offer what comes next."},
    {"role": "user", "content": "Which river does Lisbon lie on, and since when has it been the capital of Portugal?"},
]
POLICIES: list[dict[str, Any]] = [
    {"kind": "model_restriction", "config": {"allow": ["gpt-*"]}},
    {"kind": "rate_limit", "config": {"requests": 10**9, "tokens": 10**12, "per": "minute", "concurrent": 10**6}},
    {"kind": "cost_cap", "config": {"limit_usd": "1000000", "per": "day"}},
    {"kind": "cost_cap", "config": {"limit_usd": "1000000", "per": "month", "fit": "clamp"}},
    {"kind": "guardrail", "config": {"detectors": {"email": "block", "secret": "redact"}, "direction": "input"}},
    {"kind": "guardrail", "config": {"detectors": {"email": "flag", "secret": "flag"}, "direction": "output"}},
]


class Bench:
    """The services of one run, and the two servers that are measured."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self.folder, self.seconds = folder, seconds
        self.postgres, self.redis = EmbeddedPostgres(folder / "postgres"), EmbeddedRedis()
        self.rows: list[dict[str, Any]] = []
        self.processes: list[Measured] = []
        self.completed = 0

    def start(self) -> None:
        self.database = self.postgres.start()
        redis_url = self.redis.start()
        port = free_port()
        self._run([sys.executable, "-m", "bench.upstream", str(port)], "upstream").wait_for(f"http://127.0.0.1:{port}")
        upstream = f"http://127.0.0.1:{port}/v1"
        self.bare_url = self._start_pass_through(upstream)
        self.product_url = self._start_product(upstream, redis_url)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.redis.stop()
        self.postgres.stop()

    def measure(self) -> None:
        self._create_tenant()
        whole, streamed = body(stream=False), body(stream=True)
        for _, url, _ in self._sides():
            load.whole(f"{url}/chat/completions", self.authorization, whole, 16, 1)  # warm
        self.completed = self._records()
        for in_flight in IN_FLIGHT:
            for name, url, server in self._sides():
                self.rows.append(self._whole(name, url, server, whole, in_flight))
        for name, url, server in self._sides():
            self.rows.append(self._streams(name, url, server, streamed))

    def check_records(self) -> str:
        """Compare the records with the answers: nothing lost, nothing twice."""
        time.sleep(0.5)
        written = self._records() - self.completed
        answered = sum(row["requests"] for row in self.rows if row["name"] == "control plane")
        return f"{answered} answers, {written} records written meanwhile (wrk drops what is in flight at its end)"

    def _sides(self) -> list[tuple[str, str, Measured]]:
        return [("pass-through", self.bare_url, self.bare), ("control plane", self.product_url, self.product)]

    def _whole(self, name: str, url: str, server: Measured, payload: bytes, in_flight: int) -> dict[str, Any]:
        before = server.cpu_seconds()
        done = load.whole(f"{url}/chat/completions", self.authorization, payload, in_flight, self.seconds)
        cpu = (server.cpu_seconds() - before) * 1000 / max(1, done.requests)
        return {"name": name, "in_flight": in_flight, **asdict(done), "cpu_ms": cpu, "memory_mib": server.memory_mib()}

    def _streams(self, name: str, url: str, server: Measured, payload: bytes) -> dict[str, Any]:
        before = server.cpu_seconds()
        done = load.streams(f"{url}/chat/completions", self.authorization, payload, STREAMS)
        cpu = (server.cpu_seconds() - before) * 1000 / max(1, done.chunks)
        return {"name": name, "streams": STREAMS, **asdict(done), "requests": done.completed, "cpu_ms_per_chunk": cpu}

    def _start_pass_through(self, upstream: str) -> str:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.passthrough:app", "--port", str(port), "--no-access-log"]
        env = {**os.environ, "BENCH_UPSTREAM": upstream.removesuffix("/v1")}
        self.bare = self._run([*command, "--loop", "uvloop", "--http", "httptools"], "pass-through", env)
        time.sleep(1.5)
        return f"http://127.0.0.1:{port}/v1"

    def _start_product(self, upstream: str, redis_url: str) -> str:
        port = free_port()
        env = {
            **os.environ,
            "PORT": str(port),
            "WORKERS": "1",
            "DATA_DIR": str(self.folder / "data"),
            "DEMO_FILE": str(self.folder / "demo.json"),
            **apart(self.database),
            "REDIS_URL": redis_url,
            "OPENAI_BASE_URL": upstream,
            "OPENAI_API_KEY": "bench",
        }
        self.product = self._run([sys.executable, str(ROOT / "manage.py"), "serve"], "control-plane", env)
        self.product.wait_for(f"http://127.0.0.1:{port}/health/ready")
        return f"http://127.0.0.1:{port}/v1"

    def _run(self, command: list[str], name: str, env: dict[str, str] | None = None) -> Measured:
        process = Measured(command, self.folder / f"{name}.log", env)
        self.processes.append(process)
        return process

    def _create_tenant(self) -> None:
        demo = json.loads((self.folder / "demo.json").read_text())
        headers = {"Authorization": f"Bearer {demo['admin_api_key']}"}
        with httpx.Client(base_url=f"{self.product_url}/admin", headers=headers, timeout=30) as api:
            organization = _created(api, "/organizations", {"name": "Bench"})["id"]
            application = _created(api, "/applications", {"organization": organization, "name": "Bench"})["id"]
            for number, policy in enumerate(POLICIES):
                _created(api, "/policies", {"organization": organization, "name": f"Policy {number}", **policy})
            key = _created(api, "/keys", {"application": application, "name": "Bench"})["key"]
        self.authorization = f"Bearer {key}"

    def _records(self) -> int:
        with psycopg.connect(self.database.replace("postgres://", "postgresql://", 1)) as connection:
            row = connection.execute("SELECT count(*) FROM audit_requestrecord WHERE status = 'success'").fetchone()
            return int(row[0]) if row else 0


def body(*, stream: bool) -> bytes:
    given: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES, "temperature": 0.2, "max_tokens": 300}
    return json.dumps({**given, "stream": True} if stream else given).encode()


def report(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | in flight | RPS | p50, ms | p99, ms | CPU ms/request | errors | RSS MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {r['in_flight']} | {r['requests'] / r['seconds']:.0f} | {r['p50_ms']:.2f} "
        f"| {r['p99_ms']:.2f} | {r['cpu_ms']:.3f} | {r['errors']} | {r['memory_mib']:.0f} |"
        for r in rows
        if "in_flight" in r
    ]
    lines += ["", "| | streams | completed | chunks | CPU ms/chunk | seconds |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r['name']} | {r['streams']} | {r['completed']} | {r['chunks']} | {r['cpu_ms_per_chunk']:.4f} "
        f"| {r['seconds']:.1f} |"
        for r in rows
        if "streams" in r
    ]
    return "\n".join(lines)


def _created(api: httpx.Client, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=fields)
    if answer.status_code != 201:
        raise SystemExit(f"POST {path}: {answer.status_code} {answer.text}")
    return dict(answer.json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="of each stretch of load")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="lcp-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        bench = Bench(folder, seconds)
        try:
            bench.start()
            bench.measure()
            print(f"Load: {load.GENERATOR}; {os.cpu_count()} cores shared by load, upstream, databases and server.\n")
            print(report(bench.rows))
            print("\n" + bench.check_records())
        finally:
            bench.stop()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json").write_text(json.dumps(bench.rows, indent=1))


if __name__ == "__main__":
    main()
