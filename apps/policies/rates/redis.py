"""Counters in Redis, shared by all processes."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from apps.policies.rates.base import RateKind, RateLimit, RateReading, RatesUnavailable, RateVerdict, allow, refuse
from apps.policies.rates.connection import ConnectionLost, Connections, ReplyError
from apps.policies.rates.scripts import COUNT, PEEK, SETTLE, TAKE, Script

MICROSECONDS = 1_000_000


class RedisRateStore:
    """Counters that many processes share: each operation is one atomic script on Redis's own clock.

    ``url`` is ``redis://``, ``rediss://`` (TLS) or ``unix://``. All keys carry ``prefix`` as a hash tag, so that a
    cluster keeps them in one slot, and every key expires by itself. An operation takes at most ``timeout_seconds``, and
    ``connect_timeout_seconds`` more when it has to connect first; every failure is a `RatesUnavailable`. Any event loop
    may use it.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "rates",
        *,
        timeout_seconds: float = 0.1,
        connect_timeout_seconds: float = 0.25,
    ) -> None:
        self._connections = Connections(url, timeout_seconds, connect_timeout_seconds)
        self._prefix = prefix if "{" in prefix else f"{{{prefix}}}"

    async def take(self, request_id: str, limits: Sequence[RateLimit], tokens: int, hold_seconds: float) -> RateVerdict:
        """Count the request in every limit, or in none if one refuses."""
        if not limits:
            return allow(())
        hold = max(1, math.ceil(hold_seconds * 1000))
        fits, *readings = await self._run(TAKE, request_id, limits, (request_id, hold, *_asked(limits, tokens)))
        return allow(_readings(limits, readings)) if fits else refuse(_readings(limits, readings), tokens)

    async def release(self, request_id: str, limits: Sequence[RateLimit], tokens_taken: int, tokens_used: int) -> None:
        """Free the slots and correct the estimate to what was used."""
        changes = [tokens_used - tokens_taken if limit.kind is RateKind.TOKENS else 0 for limit in limits]
        await self._settle(request_id, limits, changes)

    async def give_back(self, request_id: str, limits: Sequence[RateLimit], tokens: int) -> None:
        """Undo a take completely."""
        await self._settle(request_id, limits, [-limit.cost(tokens) for limit in limits])

    async def peek(self, limits: Sequence[RateLimit], tokens: int) -> tuple[RateReading, ...]:
        """Read what is left, as a request of ``tokens`` would find it."""
        _, *readings = await self._run(PEEK, "", limits, ("", 0, *_asked(limits, tokens)))
        return _readings(limits, readings)

    async def count_processes(self, name: str, hold_seconds: float) -> int:
        """Say that the process ``name`` is there, for so long; return how many have said so.

        Raises `RatesUnavailable`.
        """
        arguments = (f"{self._prefix}:processes", name, math.ceil(hold_seconds * 1000))
        count: int = await self._answered(COUNT, 1, *arguments)
        return count

    async def close(self) -> None:
        """Close the connections; the store opens them again if it is used again."""
        await self._connections.close()

    async def _settle(self, request_id: str, limits: Sequence[RateLimit], changes: Sequence[int]) -> None:
        if limits:
            pairs = ((change, limit.window_microseconds) for change, limit in zip(changes, limits, strict=True))
            await self._run(SETTLE, request_id, limits, (request_id, *chain.from_iterable(pairs)))

    async def _run(
        self, script: Script, request_id: str, limits: Sequence[RateLimit], arguments: tuple[str | int, ...]
    ) -> list[int]:
        keys = (f"{self._prefix}:take:{request_id}", *[self._key(limit) for limit in limits])
        reply: list[int] = await self._answered(script, len(keys), *keys, *arguments)
        return reply

    async def _answered(self, script: Script, *arguments: str | int) -> Any:
        try:
            return await self._evaluate(script, *arguments)
        except (ReplyError, ConnectionLost, OSError, TimeoutError) as error:
            msg = f"The rate limits in Redis cannot be reached: {error}"
            raise RatesUnavailable(msg) from error

    async def _evaluate(self, script: Script, *arguments: str | int) -> Any:
        try:
            return await self._connections.call("EVALSHA", script.digest, *arguments)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self._connections.call("EVAL", script.text, *arguments)

    def _key(self, limit: RateLimit) -> str:
        return f"{self._prefix}:{limit.key}:{limit.window_microseconds or 'slots'}"


def _asked(limits: Sequence[RateLimit], tokens: int) -> list[int]:
    asked: list[int] = []
    for limit in limits:
        asked += (limit.cost(tokens), limit.limit, limit.window_microseconds)
    return asked


def _readings(limits: Sequence[RateLimit], reply: Sequence[int]) -> tuple[RateReading, ...]:
    return tuple(
        RateReading(limit, remaining, math.inf if reset < 0 else reset / MICROSECONDS)
        for limit, remaining, reset in zip(limits, reply[::2], reply[1::2], strict=True)
    )
