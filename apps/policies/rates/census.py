"""How many processes share the limits, so that each knows its share of them when Redis is away.

Each process says every second, in Redis, that it is there, and learns how many others are. What it learnt last
holds while Redis does not answer.
"""

import asyncio
from collections import deque
from contextlib import suppress
from uuid import uuid4

from apps.policies.rates.base import RatesUnavailable
from apps.policies.rates.redis import RedisRateStore

ANNOUNCE_SECONDS = 1.0
HOLD_SECONDS = 10.0
"""How long a process counts after it was last heard of."""
READINGS = 3
"""The highest of so many readings holds: a Redis that has just begun anew knows the first who come back only."""


class Census:
    """The processes that one Redis has seen lately, this one among them. Belongs to the event loop that started it.

    ``at_least`` is how many there are even if Redis never said so: those of this server.
    """

    def __init__(self, redis: RedisRateStore, at_least: int = 1, announce_seconds: float = ANNOUNCE_SECONDS) -> None:
        self._redis = redis
        self._at_least = at_least
        self._announce_seconds = announce_seconds
        self._name = str(uuid4())
        self._readings: deque[int] = deque(maxlen=READINGS)
        self._announcing: asyncio.Task[None] | None = None

    def processes(self) -> int:
        """Return how many processes share the limits, as far as is known."""
        return max(self._at_least, *self._readings, 1)

    def start(self) -> None:
        """Begin to announce this process."""
        self._announcing = asyncio.get_running_loop().create_task(self._announce_for_ever())

    async def stop(self) -> None:
        """Announce it no more; it counts for `HOLD_SECONDS` yet, which errs on the safe side."""
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.gather(self._announcing, return_exceptions=True)

    async def announce(self) -> None:
        """Say that this process is there, and learn of the others. Without an answer, what was known holds."""
        with suppress(RatesUnavailable):
            self._readings.append(await self._redis.count_processes(self._name, HOLD_SECONDS))

    async def _announce_for_ever(self) -> None:
        while True:
            await self.announce()
            await asyncio.sleep(self._announce_seconds)
