"""Load on loopback, bounded in time: wrk where it is installed, else a small client of our own; and many streams."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

GENERATOR = "wrk" if shutil.which("wrk") else "bench's own client"
_SCRIPT = """
wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = os.getenv("BENCH_AUTHORIZATION")
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format('RESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass
class Streams:
    completed: int
    chunks: int
    seconds: float


def whole(url: str, authorization: str, body: bytes, in_flight: int, seconds: int) -> Load:
    """Keep so many requests in flight for so many seconds."""
    if GENERATOR != "wrk":
        return uvloop.run(_own(url, authorization, body, in_flight, seconds))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        Path(script.name).write_text(_SCRIPT)
        env = {**os.environ, "BENCH_BODY": body.decode(), "BENCH_AUTHORIZATION": authorization}
        command = ["wrk", "-t1", f"-c{in_flight}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name, url]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=seconds + 60)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return Load(**json.loads(line[7:]))


def streams(url: str, authorization: str, body: bytes, count: int) -> Streams:
    """Run so many streams at once to their ends, within 60 s."""
    return uvloop.run(_streams(url, authorization, body, count))


async def _own(url: str, authorization: str, body: bytes, in_flight: int, seconds: int) -> Load:
    times: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal errors
        reader, writer = await _connect(url)
        while time.perf_counter() < end:
            started = time.perf_counter()
            writer.write(_request(url, authorization, body))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            times.append(time.perf_counter() - started)
            errors += b" 200 " not in head[:15]
        writer.close()

    await asyncio.gather(*(one() for _ in range(in_flight)))
    times.sort()
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))] * 1000  # noqa: E731
    return Load(len(times), seconds, at(0.5), at(0.99), errors)


async def _streams(url: str, authorization: str, body: bytes, count: int) -> Streams:
    started = time.perf_counter()

    async def one() -> tuple[bool, int]:
        reader, writer = await _connect(url)
        writer.write(_request(url, authorization, body))
        chunks, tail = 0, b""
        while data := await reader.read(65_536):
            buffer = tail + data
            chunks += buffer.count(b"data: {") - tail.count(b"data: {")
            if b"data: [DONE]" in buffer:
                writer.close()
                return True, chunks
            tail = buffer[-16:]
        return False, chunks

    async with asyncio.timeout(60):
        done = await asyncio.gather(*(one() for _ in range(count)))
    return Streams(sum(ok for ok, _ in done), sum(chunks for _, chunks in done), time.perf_counter() - started)


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(url)
    return await asyncio.open_connection(where.hostname, where.port)


def _request(url: str, authorization: str, body: bytes) -> bytes:
    where = urlsplit(url)
    head = (
        f"POST {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: {authorization}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
