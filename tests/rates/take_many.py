"""A process of its own that takes from a shared limit and prints how many were admitted."""

import asyncio
import os
import sys

from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, concurrent_limit, requests_limit


async def take_many(url: str, prefix: str, limit: int, takes: int) -> int:
    store = RedisRateStore(url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    limits = [requests_limit(limit), concurrent_limit(1000)]
    verdicts = await asyncio.gather(*[store.take(f"{os.getpid()}-{n}", limits, 0, HOLD_SECONDS) for n in range(takes)])
    await store.close()
    return sum(verdict.allowed for verdict in verdicts)


if __name__ == "__main__":
    print(asyncio.run(take_many(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
