"""What happens to the rate limits while Redis does not answer.

``local``
    Fail open, within bounds. Each process counts alone, with its share of every limit: the limit divided by the number
    of processes that Redis knew of last, at least 1. Verdicts are ``degraded``. All processes together stay within the
    limit, but for limits below their number, and for processes that start meanwhile; the counts begin empty, so the
    window in which Redis fails, and the one in which it comes back, may hold up to twice the limit.
``closed``
    Fail closed. Every take raises `RatesUnavailable`, which the caller answers with 503.

In both, one request finds out that Redis has failed, and for ``retry_seconds`` no other waits for it. Then one request
at a time tries again. What Redis has to be told about requests that ended meanwhile is kept and told first, so that
their slots are free when limits are taken again; the oldest is dropped beyond `MOST_OWED`, and its slots expire by
themselves.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from apps.policies.rates.base import RateLimit, RateReading, RateStore, RatesUnavailable, RateVerdict, allow, refuse
from apps.policies.rates.memory import MemoryRateStore

MOST_OWED = 10_000
OWED_AT_ONCE = 128

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[], Coroutine[Any, Any, None]]


class WhenUnavailable(StrEnum):
    """What to do while the primary store does not answer."""

    LOCAL = "local"
    CLOSED = "closed"


class Breaker:
    """Remembers that the primary failed, and lets one caller try again every ``retry_seconds``."""

    def __init__(self, retry_seconds: float, clock: Callable[[], float]) -> None:
        self.retry_seconds = retry_seconds
        self._clock = clock
        self._next_try: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last that is known of the primary is a failure."""
        return self._next_try is not None

    def lets_through(self) -> bool:
        """Whether the caller may try the primary; of many that ask while it is due, the first only."""
        if self._next_try is None:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        self._next_try = now + self.retry_seconds
        return True

    def failed(self, error: RatesUnavailable) -> None:
        """Remember a failure."""
        if not self.is_open:
            logger.warning("Rate limits fall back: %s", error)
        self._next_try = self._clock() + self.retry_seconds

    def succeeded(self) -> None:
        """Remember that the primary answers."""
        if self.is_open:
            logger.warning("Rate limits are shared again")
        self._next_try = None


class FallbackRateStore:
    """A primary store, and what is done while it fails: see the module's text.

    ``processes`` tells how many processes share the limits; ``retry_seconds`` the time between two tries.
    """

    def __init__(
        self,
        primary: RateStore,
        when_unavailable: WhenUnavailable = WhenUnavailable.LOCAL,
        *,
        processes: Callable[[], int] = lambda: 1,
        retry_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._primary = primary
        self._mode = when_unavailable
        self._processes = processes
        self._share = MemoryRateStore(clock)
        self._breaker = Breaker(retry_seconds, clock)
        self._owed: deque[Operation] = deque(maxlen=MOST_OWED)

    async def take(self, request_id: str, limits: Sequence[RateLimit], tokens: int, hold_seconds: float) -> RateVerdict:
        """Count the request in the primary, or as the mode says. Raises `RatesUnavailable` if it fails closed."""
        if self._breaker.lets_through():
            try:
                return await self._ask_primary(partial(self._primary.take, request_id, limits, tokens, hold_seconds))
            except RatesUnavailable:
                # The primary may have counted it, or may yet when it wakes up; but the share answers for it from here.
                self._owed.append(partial(self._primary.give_back, request_id, limits, tokens))
        return await self._take_share(request_id, limits, tokens, hold_seconds)

    async def release(self, request_id: str, limits: Sequence[RateLimit], tokens_taken: int, tokens_used: int) -> None:
        """Settle a request where it was counted: now, or when the primary is back."""
        if self._share.has_taken(request_id):
            await self._share.release(request_id, self._shares(limits), tokens_taken, tokens_used)
        else:
            await self._tell_primary(partial(self._primary.release, request_id, limits, tokens_taken, tokens_used))

    async def give_back(self, request_id: str, limits: Sequence[RateLimit], tokens: int) -> None:
        """Undo a take where it was counted: now, or when the primary is back."""
        if self._share.has_taken(request_id):
            await self._share.give_back(request_id, self._shares(limits), tokens)
        else:
            await self._tell_primary(partial(self._primary.give_back, request_id, limits, tokens))

    async def peek(self, limits: Sequence[RateLimit], tokens: int) -> tuple[RateReading, ...]:
        """Read what is left in the primary, or as the mode says. Raises `RatesUnavailable` if it fails closed."""
        if self._breaker.lets_through():
            with suppress(RatesUnavailable):
                return await self._ask_primary(partial(self._primary.peek, limits, tokens))
        self._refuse_if_closed()
        return self._as_configured(limits, await self._share.peek(self._shares(limits), tokens), tokens)

    async def close(self) -> None:
        """Close the primary."""
        await self._primary.close()

    async def _ask_primary(self, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            if self._owed:
                await self._pay_what_is_owed()
            answer = await operation()
        except RatesUnavailable as error:
            self._breaker.failed(error)
            raise
        self._breaker.succeeded()
        return answer

    async def _tell_primary(self, operation: Operation) -> None:
        if self._breaker.lets_through():
            with suppress(RatesUnavailable):
                return await self._ask_primary(operation)
        self._owed.append(operation)
        return None

    async def _pay_what_is_owed(self) -> None:
        while self._owed:
            batch = [self._owed.popleft() for _ in range(min(OWED_AT_ONCE, len(self._owed)))]
            try:
                await asyncio.gather(*[operation() for operation in batch])
            except BaseException:
                # Settling twice does no harm, so the whole batch is owed again.
                self._owed.extendleft(reversed(batch))
                raise

    async def _take_share(
        self, request_id: str, limits: Sequence[RateLimit], tokens: int, hold_seconds: float
    ) -> RateVerdict:
        self._refuse_if_closed()
        verdict = await self._share.take(request_id, self._shares(limits), tokens, hold_seconds)
        readings = self._as_configured(limits, verdict.readings, tokens)
        return replace(allow(readings) if verdict.allowed else refuse(readings, tokens), degraded=True)

    def _refuse_if_closed(self) -> None:
        if self._mode is WhenUnavailable.CLOSED:
            raise RatesUnavailable("The rate limits cannot be reached, and nothing is let through without them")

    def _shares(self, limits: Sequence[RateLimit]) -> list[RateLimit]:
        processes = self._processes()
        return [replace(limit, limit=max(1, limit.limit // processes)) for limit in limits]

    def _as_configured(
        self, limits: Sequence[RateLimit], readings: Sequence[RateReading], tokens: int
    ) -> tuple[RateReading, ...]:
        return tuple(
            RateReading(limit, reading.remaining, self._reset(limit, reading.reset_seconds, tokens))
            for limit, reading in zip(limits, readings, strict=True)
        )

    def _reset(self, limit: RateLimit, reset_seconds: float, tokens: int) -> float:
        # What is too large for the share alone may fit when the primary is back.
        fits_when_back = limit.cost(tokens) <= limit.limit
        return self._breaker.retry_seconds if math.isinf(reset_seconds) and fits_when_back else reset_seconds
