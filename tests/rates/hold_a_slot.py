"""A process of its own that takes a slot, says so, and waits to be killed."""

import asyncio
import sys

from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import concurrent_limit


async def hold(url: str, prefix: str, seconds: float) -> None:
    store = RedisRateStore(url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    verdict = await store.take("held", [concurrent_limit(1)], 0, seconds)
    print(verdict.allowed, flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2], float(sys.argv[3])))
