"""Load over kept connections: closed (so many in flight) and open (so many a second, whatever comes back)."""

import asyncio
import math
import time
from collections import Counter
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


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.done: asyncio.Future[int] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(0)

    async def ask(self, request: bytes) -> int:
        """Send a request; return the answer's status, 0 if the connection broke."""
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.done

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.done is None:
            return
        head = self.buffer[:end].lower()
        at = head.index(b"content-length:")
        size = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) >= size:
            self.head, self.buffer = self.buffer[:end], self.buffer[size:]
            if not self.done.done():
                self.done.set_result(int(head[9:12]))


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
    end = time.perf_counter() + seconds

    async def one(connection: Connection) -> None:
        while (started := time.perf_counter()) < end:
            status = await connection.ask(asked)
            seen.add(status, (time.perf_counter() - started) * 1000)

    await asyncio.gather(*map(one, connections))
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
    running: set[asyncio.Task[None]] = set()

    async def one(connection: Connection, due: float) -> None:
        status = await connection.ask(asked)
        if due >= started + settling:
            seen.add(status, (time.perf_counter() - due) * 1000)
        if status:
            free.append(connection)

    started, sent, total = time.perf_counter(), 0, int(per_second * seconds)
    while sent < total:
        now = time.perf_counter()
        while sent < total and (due := started + sent / per_second) <= now:
            sent += 1
            if not free:
                seen.unsent += 1
                continue
            task = asyncio.ensure_future(one(free.pop(), due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.001)
    await asyncio.gather(*running)
    for connection in opened:
        connection.transport.close()
    return seen
