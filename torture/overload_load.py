"""Load over kept connections: closed (so many in flight) and open (so many a second, whatever comes back)."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Seen:
    """What came back: by status, the milliseconds of each answer. ``unsent``: no connection was free in time."""

    seconds: float = 0.0
    times: dict[int, list[float]] = field(default_factory=dict)
    unsent: int = 0

    def add(self, status: int, milliseconds: float) -> None:
        """Note an answer."""
        self.times.setdefault(status, []).append(milliseconds)

    def per_second(self, status: int) -> float:
        """Return how many answers of a status came in a second."""
        return len(self.times.get(status, ())) / self.seconds

    def percentile(self, status: int, share: float) -> float:
        """Return a percentile of an answer's milliseconds; not a number if there was none."""
        found = sorted(self.times.get(status, ()))
        return found[min(len(found) - 1, int(share * len(found)))] if found else math.nan

    def counts(self) -> dict[int, int]:
        """Return how many answers each status had."""
        return dict(Counter({status: len(found) for status, found in self.times.items()}))


Answered = Callable[["Connection", int], None]


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time.

    It calls back rather than having a task wait: the load shares a core with the database, whose time is not its own.
    """

    def __init__(self) -> None:
        self.due = 0.0
        self._head, self._rest, self._wanted = b"", 0, 0
        self._then: Answered | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(0)

    def send(self, request: bytes, then: Answered) -> None:
        """Send a request; ``then`` is called with the answer's status, 0 if the connection breaks."""
        self._then = then
        self.transport.write(request)

    async def ask(self, request: bytes) -> int:
        """Send a request; return the answer's status, 0 if the connection broke."""
        done = asyncio.get_running_loop().create_future()
        self.send(request, lambda _, status: done.set_result(status))
        status: int = await done
        return status

    def data_received(self, data: bytes) -> None:
        if self._wanted:
            self._rest += len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.lower().index(b"content-length:", 0, end)
            length = int(self._head[at + 15 : self._head.index(b"\r\n", at)])
            self._rest, self._wanted = len(self._head) - end - 4, length
        if self._rest >= self._wanted:
            status, self._head, self._wanted = int(self._head[9:12]), b"", 0
            self._answered(status)

    def _answered(self, status: int) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(self, status)


async def connect(port: int) -> Connection:
    """Open a connection to this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


def request(port: int, key: str, body: bytes, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    """Return a request's bytes."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def closed(port: int, asked: bytes, in_flight: int, seconds: float) -> Seen:
    """Keep so many requests in flight."""
    seen = Seen(seconds)
    connections = [await connect(port) for _ in range(in_flight)]
    end, ended, running = time.perf_counter() + seconds, asyncio.Event(), in_flight

    def answered(connection: Connection, status: int) -> None:
        nonlocal running
        now = time.perf_counter()
        seen.add(status, (now - connection.due) * 1000)
        if now < end and status:
            begin(connection)
        else:
            running -= 1
            if running == 0:
                ended.set()

    def begin(connection: Connection) -> None:
        connection.due = time.perf_counter()
        connection.send(asked, answered)

    for connection in connections:
        begin(connection)
    await ended.wait()
    for connection in connections:
        connection.transport.close()
    return seen


async def steady(
    port: int, asked: bytes, per_second: float, seconds: float, connections: int = 600, settling: float = 0.0
) -> Seen:
    """Send so many a second, whatever comes back. A request's time counts from when it was due.

    What is due in the first ``settling`` seconds is sent and not counted.
    """
    seen = Seen(seconds - settling)
    free = [await connect(port) for _ in range(min(connections, max(8, int(per_second))))]
    opened = list(free)
    ended, running = asyncio.Event(), 0

    def answered(connection: Connection, status: int) -> None:
        nonlocal running
        running -= 1
        if connection.due >= counted_from:
            seen.add(status, (time.perf_counter() - connection.due) * 1000)
        if status:
            free.append(connection)
        if running == 0 and sent == total:
            ended.set()

    started, sent, total = time.perf_counter(), 0, int(per_second * seconds)
    counted_from = started + settling
    while sent < total:
        now = time.perf_counter()
        while sent < total and (due := started + sent / per_second) <= now:
            sent += 1
            if not free:
                seen.unsent += 1
                continue
            connection = free.pop()
            connection.due = due
            running += 1
            connection.send(asked, answered)
        await asyncio.sleep(0.001)
    if running:
        await ended.wait()
    for connection in opened:
        connection.transport.close()
    return seen
