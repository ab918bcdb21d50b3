"""What happens while Redis does not answer, and when it is back. The clock of the breaker is the test's own."""

import asyncio
import math

import pytest

from apps.policies.rates.base import RatesUnavailable
from apps.policies.rates.fallback import OWED_AT_ONCE, FallbackRateStore, WhenUnavailable
from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, Clock, concurrent_limit, requests_limit, tokens_limit

pytestmark = pytest.mark.anyio

RETRY_SECONDS = 0.5


class Outage:
    """A store in front of a Redis that fails, and a clock that decides when it is tried again."""

    def __init__(self, server, mode=WhenUnavailable.LOCAL, processes=1):
        self.server, self.clock = server, Clock()
        self.redis = RedisRateStore(server.url, timeout_seconds=1.0, connect_timeout_seconds=1.0)
        self.store = FallbackRateStore(
            self.redis, mode, processes=lambda: processes, retry_seconds=RETRY_SECONDS, clock=self.clock
        )

    async def begin(self, how):
        if how == "frozen":
            self.server.freeze()
        else:
            self.server.stop()

    async def end(self, how):
        if how == "frozen":
            self.server.thaw()
        else:
            self.server.start()
        self.clock.now += RETRY_SECONDS

    async def take(self, name, limits, tokens=0):
        return await self.store.take(name, limits, tokens, HOLD_SECONDS)


@pytest.fixture
async def outage(own_redis_server):
    made = Outage(own_redis_server)
    yield made
    await made.store.close()


@pytest.fixture(params=["frozen", "stopped"])
def how(request):
    return request.param


async def test_while_redis_answers_the_verdict_is_redis_own(outage):
    verdict = await outage.take("a", [requests_limit(2)])
    assert verdict.allowed
    assert not verdict.degraded
    assert (await outage.redis.peek([requests_limit(2)], 0))[0].remaining == 1


async def test_while_redis_fails_this_process_admits_its_share(own_redis_server, how):
    outage, limits = Outage(own_redis_server, processes=4), [requests_limit(8), concurrent_limit(100)]
    await outage.begin(how)
    verdicts = [await outage.take(f"r{n}", limits) for n in range(3)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False]
    assert all(verdict.degraded for verdict in verdicts)
    assert verdicts[2].refused_by == limits[0]
    assert 0.0 < verdicts[2].retry_after_seconds < math.inf
    assert [reading.remaining for reading in await outage.store.peek(limits, 0)] == [0, 23]
    await outage.store.close()


async def test_a_share_is_never_less_than_one(own_redis_server):
    outage = Outage(own_redis_server, processes=10)
    await outage.begin("stopped")
    assert (await outage.take("a", [requests_limit(3)])).allowed
    assert not (await outage.take("b", [requests_limit(3)])).allowed
    await outage.store.close()


async def test_what_is_too_large_for_the_share_alone_may_be_tried_again(own_redis_server):
    outage = Outage(own_redis_server, processes=10)
    await outage.begin("stopped")
    verdict = await outage.take("a", [tokens_limit(1000)], 500)
    assert not verdict.allowed
    assert verdict.retry_after_seconds == RETRY_SECONDS
    assert (await outage.take("b", [tokens_limit(1000)], 1001)).never_fits
    await outage.store.close()


async def test_when_it_fails_closed_nothing_is_let_through(own_redis_server, how):
    outage, limits = Outage(own_redis_server, WhenUnavailable.CLOSED), [requests_limit(8)]
    assert (await outage.take("before", limits)).allowed
    await outage.begin(how)
    for name in "abc":
        with pytest.raises(RatesUnavailable):
            await outage.take(name, limits)
    with pytest.raises(RatesUnavailable):
        await outage.store.peek(limits, 0)
    await outage.store.release("before", limits, 0, 0)
    await outage.end(how)
    verdict = await outage.take("after", limits)
    assert verdict.allowed
    assert not verdict.degraded
    await outage.store.close()


async def test_after_a_failure_redis_is_left_alone_until_it_is_time_to_try_again(outage):
    await outage.begin("frozen")
    assert (await outage.take("a", [requests_limit(9)])).degraded
    outage.server.thaw()
    assert (await outage.take("b", [requests_limit(9)])).degraded
    outage.clock.now += RETRY_SECONDS
    assert not (await outage.take("c", [requests_limit(9)])).degraded


async def test_only_one_request_at_a_time_tries_a_failed_redis(outage):
    await outage.begin("frozen")
    await outage.take("first", [requests_limit(99)])
    outage.clock.now += RETRY_SECONDS
    tries = asyncio.ensure_future(outage.take("tries", [requests_limit(99)]))
    await asyncio.sleep(0)
    others = [await outage.take(f"r{n}", [requests_limit(99)]) for n in range(20)]
    assert all(verdict.degraded for verdict in others)
    assert not tries.done()
    assert (await tries).degraded


async def test_a_redis_that_fails_under_many_requests_refuses_none_of_them(outage, how):
    limits = [requests_limit(1000), concurrent_limit(1000)]
    await outage.take("before", limits)
    await outage.begin(how)
    verdicts = await asyncio.gather(*[outage.take(f"r{n}", limits) for n in range(100)])
    assert all(verdict.allowed and verdict.degraded for verdict in verdicts)


async def test_slots_of_requests_that_end_during_the_outage_are_free_when_redis_is_back(own_redis_server):
    outage, limits = Outage(own_redis_server), [concurrent_limit(2 * OWED_AT_ONCE), tokens_limit(10**6)]
    names = [f"r{n}" for n in range(2 * OWED_AT_ONCE)]
    for name in names:
        assert not (await outage.take(name, limits, 100)).degraded
    await outage.begin("frozen")
    for name in names[::2]:
        await outage.store.release(name, limits, 100, 50)
    for name in names[1::2]:
        await outage.store.give_back(name, limits, 100)
    await outage.end("frozen")
    verdict = await outage.take("next", limits, 0)
    assert verdict.allowed
    assert [reading.remaining for reading in verdict.readings] == [
        2 * OWED_AT_ONCE - 1,
        10**6 - 50 * OWED_AT_ONCE,
    ]
    await outage.store.close()


async def test_a_take_that_a_frozen_redis_counts_when_it_wakes_up_is_undone(outage):
    limits = [requests_limit(5), concurrent_limit(1), tokens_limit(100)]
    assert (await outage.take("before", [requests_limit(5)])).allowed
    await outage.begin("frozen")
    assert (await outage.take("late", limits, 60)).degraded
    await outage.end("frozen")
    verdict = await outage.take("after", limits, 60)
    assert verdict.allowed
    assert not verdict.degraded
    assert [reading.remaining for reading in verdict.readings] == [3, 0, 40]


async def test_a_request_counted_by_the_share_is_settled_there_when_redis_is_back(outage, how):
    limits = [concurrent_limit(2), tokens_limit(100)]
    await outage.begin(how)
    assert (await outage.take("released", limits, 10)).degraded
    assert (await outage.take("given back", limits, 10)).degraded
    await outage.end(how)
    await outage.store.release("released", limits, 10, 15)
    await outage.store.give_back("given back", limits, 10)
    verdict = await outage.take("next", limits, 10)
    assert [reading.remaining for reading in verdict.readings] == [1, 90]
    await outage.begin(how)
    verdict = await outage.take("in the second outage", limits, 10)
    assert verdict.degraded
    assert [reading.remaining for reading in verdict.readings] == [1, 75]


async def test_a_redis_that_keeps_failing_is_tried_again_and_again(outage):
    await outage.begin("stopped")
    for number in range(3):
        assert (await outage.take(f"r{number}", [requests_limit(9)])).degraded
        outage.clock.now += RETRY_SECONDS
    outage.server.start()
    assert not (await outage.take("back", [requests_limit(9)])).degraded
