"""Failures under traffic: workers killed again and again, and a database or a Redis that freezes and stops."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx

from tests.server.test_database_outage import Installation
from tests.server.test_kill import Killable
from tests.server.test_redis_outage import Limited
from tests.services import accounts
from torture import Figures, long_test

CLIENTS, FEW_CLIENTS = 24, 4
KILLS = 20
OUTAGES = 3
OUTAGE_SECONDS = 8.0
ANSWER_SECONDS, RETURN_SECONDS, RISE_SECONDS = 2.0, 10.0, 0.25
DEADLINE_SECONDS, RESOLVED_SECONDS = 5, 60
TEXTS = (
    "Hello",
    "mock:delay=0.3",
    "mock:words=20,gap=0.02",
    "mock:words=5,after=3,breaks=stream",
    "mock:status=500",
    "mock:garbage=text",
)


@dataclass
class Traffic:
    """Clients that send one request after the other, each with a label of its own."""

    url: str
    key: str
    answers: Counter[int] = field(default_factory=Counter)
    slowest_refusal: float = 0.0
    served_at: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        clients = [threading.Thread(target=self._send_on) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stop.set()
            for client in clients:
                client.join()

    def _send_on(self) -> None:
        with httpx.Client(timeout=60, headers={"Authorization": f"Bearer {self.key}"}) as client:
            while not self._stop.wait(random.uniform(0, 0.05)):
                with suppress(httpx.HTTPError):
                    self._send(client)

    def _send(self, client: httpx.Client) -> None:
        body = {
            "model": "gpt-4o-mini",
            "max_tokens": 50,
            "user": str(uuid4()),
            "stream": random.random() < 0.5,
            "messages": [{"role": "user", "content": random.choice(TEXTS)}],
        }
        started = time.monotonic()
        answer = client.post(f"{self.url}/v1/chat/completions", json=body)
        self.answers[answer.status_code] += 1
        if answer.status_code == 503:
            assert "retry-after" in answer.headers
            self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - started)
        if answer.status_code == 200:
            self.served_at = time.monotonic()


@long_test(seconds=300)
def failure_kills(folder: Path) -> Figures:
    """Every worker is killed many times under traffic; the provider's log, the records and the ledger agree.

    What was interrupted has its record when its deadline has passed, by the server's own sweeper and its own clock.
    """
    product = Killable(
        folder, REQUEST_DEADLINE_SECONDS=str(DEADLINE_SECONDS), JOURNAL_WAIT_SECONDS="1.5", SWEEP_SECONDS="10"
    )
    traffic = Traffic(product.server.url, product.server.demo["api_key"])
    kills = 0
    try:
        with traffic.flowing():
            for _ in range(KILLS):
                time.sleep(random.uniform(0.5, 2))
                for pid in product.workers():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
        last = time.monotonic()
        wait_until(lambda: product.chat("afterwards") == 200, 60)
        wait_until(lambda: not accounts.open_users(product.database), DEADLINE_SECONDS + RESOLVED_SECONDS)
        resolved = time.monotonic() - last - DEADLINE_SECONDS
        differences = accounts.differences(product.database, product.upstream.calls)
        assert differences == []
        ends = Counter(status for status, _, _ in accounts.recorded(product.database).values())
        said = {"kills": kills, "called": len(product.upstream.calls), **ends, "differences": len(differences)}
        return {**said, "the last resolved": f"{resolved:.0f} s after its deadline"}
    finally:
        product.stop()


@long_test(seconds=300)
def failure_frozen_database(folder: Path) -> Figures:
    """The database freezes again and again under traffic."""
    return outages(folder, Installation.frozen_postgres)


@long_test(seconds=300)
def failure_stopped_database(folder: Path) -> Figures:
    """The database stops again and again under traffic."""

    @contextmanager
    def stopped(product: Installation) -> Iterator[None]:
        product.postgres.stop()
        yield
        product.restart_postgres()

    return outages(folder, stopped)


@long_test(seconds=120)
def failure_redis(folder: Path) -> Figures:
    """Redis freezes, and then stops, under traffic: answers take little longer, and the money is exact."""
    limited = Limited(folder, "local", requests=10**9)
    try:
        with_redis = percentile(times_of(limited), 0.99)
        limited.freeze_redis()
        frozen = percentile(times_of(limited), 0.99)
        limited.stop_redis()
        stopped = percentile(times_of(limited), 0.99)
        wait_until(lambda: not accounts.differences(limited.database, limited.upstream.calls), 30)
        assert max(frozen, stopped) - with_redis <= RISE_SECONDS, (with_redis, frozen, stopped)
        return {
            "p99 with Redis": f"{with_redis * 1000:.0f} ms",
            "frozen": f"{frozen * 1000:.0f} ms",
            "stopped": f"{stopped * 1000:.0f} ms",
            "degraded": sum(parts == ["rate_limits"] for parts in limited.degraded().values()),
            "called": len(limited.upstream.calls),
        }
    finally:
        limited.stop()


def times_of(limited: Limited) -> list[float]:
    """Return the seconds of each answer of a few clients that ask one after the other, every one of them a 200."""
    end, times = time.monotonic() + OUTAGE_SECONDS, list[float]()

    def ask_on() -> None:
        with httpx.Client() as client:
            while (started := time.monotonic()) < end:
                assert limited.chat(str(uuid4()), client) == 200
                times.append(time.monotonic() - started)

    with ThreadPoolExecutor(FEW_CLIENTS) as pool:
        for done in [pool.submit(ask_on) for _ in range(FEW_CLIENTS)]:
            done.result()
    return times


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[int(share * len(times))]


def outages(folder: Path, outage: Callable[[Installation], AbstractContextManager[None]]) -> Figures:
    """Let traffic flow through outages; return how slow refusals were, how soon it served again, and what differs."""
    folder.chmod(0o755)  # PostgreSQL does not run as root: the wheel gives it a user of its own, who must get in
    product = Installation(folder)
    try:
        product.add_cap()
        traffic = Traffic(product.server.url, product.server.demo["api_key"])
        returns = []
        with traffic.flowing():
            for _ in range(OUTAGES):
                time.sleep(3)
                with outage(product):
                    time.sleep(OUTAGE_SECONDS)
                back = time.monotonic()
                wait_until(partial(_served_since, traffic, back), RETURN_SECONDS)
                returns.append(traffic.served_at - back)
        wait_until(product.add_up, 60)
        return {
            "answers": dict(traffic.answers),
            "slowest refusal": f"{traffic.slowest_refusal:.2f} s (promised: {ANSWER_SECONDS} s)",
            "served again after": f"{max(returns):.2f} s",
            "called": len(product.upstream.calls),
        }
    finally:
        product.stop()


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if condition():
                return
        time.sleep(0.05)
    assert condition()


def _served_since(traffic: Traffic, moment: float) -> bool:
    return traffic.served_at > moment
