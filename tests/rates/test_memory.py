"""The store in memory, on a clock of the test's own."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.policies.rates.base import BUCKETS_IN_A_WINDOW, RateKind, RateLimit
from apps.policies.rates.memory import SWEEP_SECONDS, MemoryRateStore
from tests.rates.conftest import HOLD_SECONDS, Clock, concurrent_limit, requests_limit, tokens_limit

TICK = 1 / 1024
MOST = 20

steps = st.lists(
    st.tuples(
        st.integers(0, 700),  # ticks that pass before
        st.integers(1, MOST),  # tokens of the estimate
        st.sampled_from(["keep", "keep", "keep", "give back", "use less", "use more"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(window=st.sampled_from([0.5, 1.0, 2.0]), steps=steps)
def test_the_count_agrees_with_a_model_that_recounts_every_window(window, steps):
    asyncio.run(_compare_with_model(window, steps))


async def _compare_with_model(window, steps):
    clock, limit, counted = Clock(), tokens_limit(MOST, window), []
    store, width = MemoryRateStore(clock), window / BUCKETS_IN_A_WINDOW
    for number, (ticks, tokens, then) in enumerate(steps):
        clock.now += ticks * TICK
        within = sum(amount for at, amount in counted if at > clock.now - window)
        at_most = sum(amount for at, amount in counted if at > clock.now - window - width)
        verdict = await store.take(str(number), [limit], tokens, HOLD_SECONDS)
        if verdict.allowed:
            assert within + tokens <= MOST
            counted += await _settle(store, str(number), limit, tokens, then, clock)
        else:
            assert at_most + tokens > MOST


async def _settle(store, name, limit, tokens, then, clock):
    taken_at = clock.now
    if then == "give back":
        await store.give_back(name, [limit], tokens)
        return []
    if then == "use less":
        clock.now += TICK
        await store.release(name, [limit], tokens, tokens // 2)
        return [(taken_at, tokens // 2)]
    if then == "use more":
        clock.now += TICK
        await store.release(name, [limit], tokens, tokens + 3)
        return [(taken_at, tokens), (clock.now, 3)]
    return [(taken_at, tokens)]


@given(times=st.lists(st.integers(0, 400), max_size=120))
@settings(max_examples=100, deadline=None)
def test_whoever_waits_as_told_is_admitted(times):
    async def wait_as_told():
        clock, limit = Clock(), requests_limit(7, 1.0)
        store = MemoryRateStore(clock)
        for number, ticks in enumerate(times):
            clock.now += ticks * TICK
            verdict = await store.take(str(number), [limit], 0, HOLD_SECONDS)
            if not verdict.allowed:
                clock.now += verdict.retry_after_seconds + 1e-9
                assert (await store.take(f"{number} again", [limit], 0, HOLD_SECONDS)).allowed

    asyncio.run(wait_as_told())


def test_a_steady_load_of_twice_the_limit_is_admitted_up_to_the_limit_within_one_percent():
    async def admitted_in_each_window():
        clock, limit, admitted = Clock(), requests_limit(200, 1.0), []
        store = MemoryRateStore(clock)
        for second in range(60):
            admitted.append(0)
            for number in range(400):
                clock.now = 1000 + second + number / 400
                verdict = await store.take(f"{second}-{number}", [limit], 0, HOLD_SECONDS)
                admitted[-1] += verdict.allowed
        return admitted

    admitted = asyncio.run(admitted_in_each_window())
    assert max(admitted) == 200
    assert 0.99 * 60 * 200 <= sum(admitted) <= 60 * 200


def test_a_counter_holds_at_most_a_windows_buckets():
    async def fill():
        clock, limit = Clock(), requests_limit(10**9, 1.0)
        store = MemoryRateStore(clock)
        for number in range(5000):
            clock.now += TICK
            await store.take(str(number), [limit], 0, 0.5)
        return store._window(limit)

    assert len(asyncio.run(fill()).buckets) <= BUCKETS_IN_A_WINDOW + 1


def test_counters_that_expired_are_dropped():
    async def use_many():
        clock = Clock()
        store = MemoryRateStore(clock)
        for number in range(1000):
            limits = [requests_limit(1, 1.0, f"r{number}"), concurrent_limit(1, f"c{number}")]
            assert (await store.take(f"request {number}", limits, 0, 2.0)).allowed
        assert len(store) == 3000
        clock.now += SWEEP_SECONDS
        await store.take("last", [requests_limit(1, 1.0, "last")], 0, 2.0)
        return len(store)

    assert asyncio.run(use_many()) == 2


def test_slots_that_come_and_go_leave_nothing_behind():
    async def come_and_go():
        store, limit = MemoryRateStore(Clock()), concurrent_limit(1)
        for number in range(5000):
            assert (await store.take(str(number), [limit], 0, HOLD_SECONDS)).allowed
            await store.release(str(number), [limit], 0, 0)
        return len(store._slots[limit.key].queue)

    assert asyncio.run(come_and_go()) < 100


def test_a_take_is_forgotten_after_its_hold():
    async def release_late():
        clock, limit = Clock(), tokens_limit(1000)
        store = MemoryRateStore(clock)
        await store.take("a", [limit], 100, 5.0)
        clock.now += 6.0
        await store.release("a", [limit], 100, 900)
        return (await store.peek([limit], 1))[0].remaining

    assert asyncio.run(release_late()) == 900


def test_threads_with_event_loops_of_their_own_share_the_limit_exactly():
    store, limits, admitted = MemoryRateStore(), [requests_limit(50), concurrent_limit(500)], []

    async def take_many(thread):
        verdicts = [await store.take(f"{thread}-{n}", limits, 0, HOLD_SECONDS) for n in range(100)]
        admitted.append(sum(verdict.allowed for verdict in verdicts))

    threads = [threading.Thread(target=lambda t=t: asyncio.run(take_many(t))) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 4
    assert sum(admitted) == 50


@pytest.mark.parametrize(
    ("kind", "window"),
    [(RateKind.CONCURRENT, 60.0), (RateKind.REQUESTS, None), (RateKind.TOKENS, 0.0), (RateKind.TOKENS, -1.0)],
)
def test_a_limit_without_the_window_its_kind_needs_is_refused(kind, window):
    with pytest.raises(ValueError, match="window"):
        RateLimit("k", "p", "p", kind, 1, window)
