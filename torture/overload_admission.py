"""Three times what a process can do: what is answered, how fast the rest is sent away, and who suffers.

Every stage of the path is on, as in ``make bench``. The rate that can be done is measured first, in the same run.
"""

import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import uvloop

from bench.processes import Measured
from bench.run import POLICIES, body
from tests.services.redis import free_port
from tests.services.server import ServerProcess, fresh_database
from torture import Figures, long_test
from torture.overload_load import Seen, closed, connect, request, steady

IN_FLIGHT = (16, 32, 64)
SECONDS = 20.0
GOODPUT, SHED_MS, UNFAIR = 0.90, 50.0, 2.0


@contextmanager
def product(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    """A server of one process with an upstream that answers at once.

    It has one core of the machine and the load has the others: what the load costs must not be the server's.
    """
    cores = os.sched_getaffinity(0)
    port = free_port()
    upstream = Measured([sys.executable, "-m", "bench.upstream", str(port)], folder / "upstream.log")
    address = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "torture"}
    server = ServerProcess(folder, {"DATABASE_URL": fresh_database(), **address, **settings})
    try:
        os.sched_setaffinity(0, {min(cores)})
        server.start()
        os.sched_setaffinity(0, cores - {min(cores)} or cores)
        os.sched_setaffinity(upstream.process.pid, cores - {min(cores)} or cores)
        yield server
    finally:
        os.sched_setaffinity(0, cores)
        server.stop()
        upstream.stop()


def tenant(server: ServerProcess) -> str:
    """Create an organization under every kind of policy; return its key."""
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}
    with httpx.Client(base_url=f"{server.url}/v1/admin", headers=headers, timeout=30) as api:
        organization = _created(api, "/organizations", {"name": f"torture {uuid4()}"})["id"]
        application = _created(api, "/applications", {"organization": organization, "name": "app"})["id"]
        for number, policy in enumerate(POLICIES):
            _created(api, "/policies", {"organization": organization, "name": f"Policy {number}", **policy})
        return str(_created(api, "/keys", {"application": application, "name": "key"})["key"])


def _created(api: httpx.Client, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@long_test(240)
def overload_sheds_what_is_beyond_capacity(folder: Path) -> Figures:
    """At three times the peak at least 90 % of it is answered, and the rest is told so in 50 ms."""
    with product(folder) as server:
        figures, missed = uvloop.run(_flood(server))
    assert not missed, f"{'; '.join(missed)}: {figures}"
    return figures


async def _flood(server: ServerProcess) -> tuple[dict[str, object], list[str]]:
    asked = request(server.port, tenant(server), body(stream=False))
    peak = await _peak(server.port, asked)
    offered = 3 * peak
    load = asyncio.ensure_future(steady(server.port, asked, offered, SECONDS))
    health, admin = await asyncio.gather(_watch(server, "/health", load), _watch(server, "/v1/admin/policies", load))
    seen = await load
    # The machine may be quicker or slower by now: what can be done is what could be done before and after.
    peak = (peak + await _peak(server.port, asked)) / 2
    goodput = seen.per_second(200) / peak
    figures = {
        "peak": f"{peak:.0f}/s",
        "offered": f"{offered:.0f}/s",
        "answers": seen.counts(),
        "goodput": f"{goodput:.0%}",
        "answered": _spread(seen, 200),
        "shed": _spread(seen, 503),
        "health": _spread(health, 200),
        "admin": _spread(admin, 200),
    }
    missed = []
    if goodput < GOODPUT:
        missed.append("goodput")
    if not seen.percentile(503, 0.99) < SHED_MS:
        missed.append("time to shed")
    if health.counts().keys() | admin.counts().keys() != {200}:
        missed.append(f"health {health.counts()} or admin {admin.counts()}")
    return figures, missed


@long_test(240)
def overload_by_one_spares_another(folder: Path) -> Figures:
    """A small tenant's p99 at most doubles when another floods, and nothing of it is sent away."""
    with product(folder) as server:
        figures, missed = uvloop.run(_neighbours(server))
    assert not missed, f"{'; '.join(missed)}: {figures}"
    return figures


async def _neighbours(server: ServerProcess) -> tuple[dict[str, object], list[str]]:
    large, small = (request(server.port, tenant(server), body(stream=False)) for _ in range(2))
    await closed(server.port, small, 2, 1)
    peak = await _peak(server.port, large)
    rate = peak / 10
    alone = await steady(server.port, small, rate, SECONDS / 2)
    busy = asyncio.ensure_future(closed(server.port, large, 32, SECONDS / 2 + 1))
    await asyncio.sleep(0.5)
    beside = await steady(server.port, small, rate, SECONDS / 2)
    await busy
    flood = asyncio.ensure_future(steady(server.port, large, 3 * peak, SECONDS / 2 + 2))
    await asyncio.sleep(1.5)  # the burst is over
    flooded = await steady(server.port, small, rate, SECONDS / 2)
    other = await flood
    figures = {
        "peak": f"{peak:.0f}/s",
        "small": f"{rate:.0f}/s",
        "alone": _spread(alone, 200),
        "beside 32 in flight": _spread(beside, 200),
        "flooded": _spread(flooded, 200),
        "answers": flooded.counts(),
        "the other's": other.counts(),
    }
    missed = []
    if flooded.percentile(200, 0.99) > UNFAIR * alone.percentile(200, 0.99):
        missed.append("p99")
    if flooded.counts().keys() != {200}:
        missed.append("the small one was sent away")
    return figures, missed


async def _peak(port: int, asked: bytes) -> float:
    """Return the most answers a second, of several numbers in flight."""
    await closed(port, asked, 16, 2)  # warm
    return max([(await closed(port, asked, in_flight, SECONDS / 5)).per_second(200) for in_flight in IN_FLIGHT])


async def _watch(server: ServerProcess, path: str, load: "asyncio.Task[Seen]") -> Seen:
    """Ask for something else five times a second until the load ends."""
    seen, connection = Seen(math.nan), await connect(server.port)
    asked = request(server.port, server.demo["admin_api_key"], b"", path, "GET")
    while not load.done():
        started = time.perf_counter()
        seen.add(await connection.ask(asked), (time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.2)
    connection.transport.close()
    return seen


def _spread(seen: Seen, status: int) -> str:
    return f"p50 {seen.percentile(status, 0.5):.1f} p99 {seen.percentile(status, 0.99):.1f} ms"
