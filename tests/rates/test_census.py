"""How many processes share the limits, as each of them knows."""

import asyncio

import pytest

from apps.policies.rates import census
from apps.policies.rates.census import Census
from apps.policies.rates.fallback import FallbackRateStore
from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, requests_limit

pytestmark = pytest.mark.anyio


async def test_each_process_learns_how_many_there_are_wherever_they_run(redis_store):
    processes = [Census(redis_store, at_least=2) for _ in range(4)]
    assert [process.processes() for process in processes] == [2] * 4
    for _ in range(2):
        await asyncio.gather(*[process.announce() for process in processes])
    assert [process.processes() for process in processes] == [4] * 4


async def test_a_process_that_is_no_longer_heard_of_is_forgotten(redis_store, monkeypatch):
    monkeypatch.setattr(census, "HOLD_SECONDS", 0.2)
    gone, here = Census(redis_store), Census(redis_store)
    await gone.announce()
    await here.announce()
    assert here.processes() == 2
    while here.processes() == 2:
        await asyncio.sleep(0.05)
        await here.announce()
    assert here.processes() == 1


async def test_a_process_goes_on_announcing_itself_until_it_stops(redis_store):
    watching, announced = Census(redis_store), Census(redis_store, announce_seconds=0.01)
    announced.start()
    while watching.processes() == 1:
        await asyncio.sleep(0.01)
        await watching.announce()
    await announced.stop()


async def test_what_was_known_last_is_the_share_while_redis_is_away_and_when_it_has_forgotten(own_redis_server):
    redis = RedisRateStore(own_redis_server.url, timeout_seconds=1.0, connect_timeout_seconds=1.0)
    others, mine = [Census(redis) for _ in range(3)], Census(redis)
    for process in (*others, mine):
        await process.announce()
    own_redis_server.stop()
    await mine.announce()
    store = FallbackRateStore(redis, processes=mine.processes, retry_seconds=60)
    verdicts = [await store.take(name, [requests_limit(8)], 0, HOLD_SECONDS) for name in "abc"]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False]
    own_redis_server.start()
    await mine.announce()
    assert mine.processes() == 4
    await store.close()
