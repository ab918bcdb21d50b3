"""What every store of rates does alike."""

import asyncio
import math
import random
import time

import pytest

from apps.policies.rates.base import BUCKETS_IN_A_WINDOW, RateStore
from tests.rates.conftest import HOLD_SECONDS, concurrent_limit, requests_limit, tokens_limit

pytestmark = pytest.mark.anyio


async def _remaining(store: RateStore, *limits, tokens: int = 1) -> list[int]:
    return [reading.remaining for reading in await store.peek(limits, tokens)]


async def test_a_request_without_limits_is_allowed(store):
    verdict = await store.take("a", [], 10, HOLD_SECONDS)
    assert verdict.allowed
    assert verdict.readings == ()
    assert not verdict.degraded


async def test_a_take_counts_in_every_limit_and_says_what_is_left(store):
    limits = [requests_limit(5), tokens_limit(1000), concurrent_limit(3)]
    verdict = await store.take("a", limits, 300, HOLD_SECONDS)
    assert verdict.allowed
    assert verdict.refused_by is None
    assert [(r.limit, r.remaining, r.reset_seconds) for r in verdict.readings] == [
        (limits[0], 4, 0.0),
        (limits[1], 700, 0.0),
        (limits[2], 2, 0.0),
    ]
    assert await _remaining(store, *limits, tokens=300) == [4, 700, 2]


@pytest.mark.parametrize("full", ["requests", "tokens", "concurrent"])
async def test_a_refused_request_consumes_nothing_anywhere(store, full):
    limits = {"requests": requests_limit(2), "tokens": tokens_limit(20), "concurrent": concurrent_limit(2)}
    for name in ("a", "b"):
        assert (await store.take(name, [limits[full]], 10, HOLD_SECONDS)).allowed
    before = await _remaining(store, *limits.values())
    verdict = await store.take("c", list(limits.values()), 10, HOLD_SECONDS)
    assert not verdict.allowed
    assert verdict.refused_by == limits[full]
    assert [r.remaining for r in verdict.readings] == before
    assert await _remaining(store, *limits.values()) == before


async def test_a_refusal_says_how_long_to_wait(store):
    limits = [requests_limit(1, 60.0), tokens_limit(100, 3600.0)]
    assert (await store.take("a", limits, 60, HOLD_SECONDS)).allowed
    verdict = await store.take("b", limits, 60, HOLD_SECONDS)
    assert verdict.refused_by == limits[1]
    assert 60.0 < verdict.retry_after_seconds <= 3600.0 * (BUCKETS_IN_A_WINDOW + 1) / BUCKETS_IN_A_WINDOW
    assert 0.0 < verdict.readings[0].reset_seconds <= 60.0 * (BUCKETS_IN_A_WINDOW + 1) / BUCKETS_IN_A_WINDOW
    assert not verdict.never_fits


async def test_an_allowed_take_says_when_as_much_is_free_again(store):
    limit = tokens_limit(100)
    verdict = await store.take("a", [limit], 60, HOLD_SECONDS)
    assert verdict.retry_after_seconds == 0.0
    assert 0.0 < verdict.readings[0].reset_seconds < math.inf


async def test_a_request_larger_than_a_limit_is_told_that_waiting_does_not_help(store):
    limits = [requests_limit(5), tokens_limit(100)]
    verdict = await store.take("a", limits, 101, HOLD_SECONDS)
    assert not verdict.allowed
    assert verdict.never_fits
    assert verdict.refused_by == limits[1]
    assert await _remaining(store, *limits) == [5, 100]


async def test_a_burst_of_concurrent_requests_is_admitted_up_to_the_limit_exactly(store):
    limits = [requests_limit(50), tokens_limit(10_000), concurrent_limit(1000)]
    verdicts = await asyncio.gather(*[store.take(f"r{n}", limits, 7, HOLD_SECONDS) for n in range(200)])
    assert sum(verdict.allowed for verdict in verdicts) == 50
    assert await _remaining(store, *limits) == [0, 10_000 - 350, 950]


async def test_concurrent_requests_take_the_slots_exactly(store):
    limit = concurrent_limit(20)
    verdicts = await asyncio.gather(*[store.take(f"r{n}", [limit], 1, HOLD_SECONDS) for n in range(200)])
    assert sum(verdict.allowed for verdict in verdicts) == 20


async def test_tokens_are_counted_by_the_estimate(store):
    limit = tokens_limit(100)
    verdicts = await asyncio.gather(*[store.take(f"r{n}", [limit], 30, HOLD_SECONDS) for n in range(20)])
    assert sum(verdict.allowed for verdict in verdicts) == 3
    assert await _remaining(store, limit) == [10]


async def test_large_counts_are_exact(store):
    limit = tokens_limit(10**12)
    assert (await store.take("a", [limit], 10**12 - 1, HOLD_SECONDS)).allowed
    assert (await store.take("b", [limit], 1, HOLD_SECONDS)).allowed
    assert not (await store.take("c", [limit], 1, HOLD_SECONDS)).allowed


async def test_a_release_frees_the_slot_and_keeps_the_request_counted(store):
    limits = [requests_limit(10), concurrent_limit(1)]
    await store.take("a", limits, 0, HOLD_SECONDS)
    await store.release("a", limits, 0, 0)
    assert await _remaining(store, *limits) == [9, 1]


async def test_a_second_release_changes_nothing(store):
    limits = [tokens_limit(1000), concurrent_limit(2)]
    await store.take("a", limits, 100, HOLD_SECONDS)
    await store.take("b", limits, 100, HOLD_SECONDS)
    for _ in range(3):
        await store.release("a", limits, 100, 150)
    await store.give_back("a", limits, 100)
    assert await _remaining(store, *limits) == [750, 1]


async def test_a_release_of_an_unknown_request_changes_nothing(store):
    limits = [tokens_limit(1000), concurrent_limit(2)]
    await store.take("a", limits, 100, HOLD_SECONDS)
    await store.release("nobody", limits, 100, 900)
    await store.give_back("nobody", limits, 100)
    assert await _remaining(store, *limits) == [900, 1]


@pytest.mark.parametrize(("used", "left"), [(0, 1000), (40, 960), (100, 900), (170, 830)])
async def test_the_estimate_is_corrected_to_what_was_used(store, used, left):
    limit = tokens_limit(1000)
    await store.take("a", [limit], 100, HOLD_SECONDS)
    await store.release("a", [limit], 100, used)
    assert await _remaining(store, limit) == [left]


async def test_what_was_used_beyond_the_limit_is_counted_and_holds_back_the_next(store):
    limit = tokens_limit(100)
    await store.take("a", [limit], 50, HOLD_SECONDS)
    await store.release("a", [limit], 50, 250)
    verdict = await store.take("b", [limit], 1, HOLD_SECONDS)
    assert not verdict.allowed
    assert verdict.readings[0].remaining == 0
    assert not verdict.never_fits


async def test_giving_back_undoes_a_take_completely_and_once(store):
    limits = [requests_limit(10), tokens_limit(1000), concurrent_limit(2)]
    await store.take("a", limits, 100, HOLD_SECONDS)
    await store.take("b", limits, 100, HOLD_SECONDS)
    for _ in range(3):
        await store.give_back("b", limits, 100)
    await store.release("b", limits, 100, 500)
    assert await _remaining(store, *limits) == [9, 900, 1]


async def test_a_slot_that_is_never_released_is_free_after_its_hold(store):
    limit = concurrent_limit(1)
    assert (await store.take("dead", [limit], 1, 0.05)).allowed
    await asyncio.sleep(0.06)
    assert (await store.take("next", [limit], 1, HOLD_SECONDS)).allowed
    await store.release("dead", [limit], 1, 1)
    assert await _remaining(store, limit) == [0]


async def test_a_full_house_of_slots_is_asked_again_soon(store):
    limit = concurrent_limit(1)
    await store.take("a", [limit], 1, HOLD_SECONDS)
    verdict = await store.take("b", [limit], 1, HOLD_SECONDS)
    assert 0.0 < verdict.retry_after_seconds <= 1.0


async def test_taking_again_for_the_same_request_holds_one_slot(store):
    limit = concurrent_limit(1)
    assert (await store.take("a", [limit], 1, HOLD_SECONDS)).allowed
    assert (await store.take("a", [limit], 1, HOLD_SECONDS)).allowed
    await store.release("a", [limit], 1, 1)
    assert await _remaining(store, limit) == [1]


async def test_a_changed_limit_keeps_the_count(store):
    await store.take("a", [requests_limit(1)], 1, HOLD_SECONDS)
    assert await _remaining(store, requests_limit(10)) == [9]
    for name in "bc":
        await store.take(name, [requests_limit(10)], 1, HOLD_SECONDS)
    assert await _remaining(store, requests_limit(2)) == [0]


async def test_another_window_is_another_counter(store):
    await store.take("a", [requests_limit(5, 60.0)], 1, HOLD_SECONDS)
    assert await _remaining(store, requests_limit(5, 3600.0), requests_limit(5, 60.0)) == [5, 4]


async def test_peeking_counts_nothing(store):
    limits = [requests_limit(5), tokens_limit(100), concurrent_limit(1)]
    for _ in range(10):
        assert await _remaining(store, *limits, tokens=50) == [5, 100, 1]
    assert (await store.peek(limits, 101))[1].reset_seconds == math.inf


async def test_what_was_told_to_wait_fits_after_that_wait(store):
    limit = requests_limit(2, 0.2)
    for name in "ab":
        await store.take(name, [limit], 1, HOLD_SECONDS)
    verdict = await store.take("c", [limit], 1, HOLD_SECONDS)
    if not verdict.allowed:
        await asyncio.sleep(verdict.retry_after_seconds + 0.001)
        assert (await store.take("c", [limit], 1, HOLD_SECONDS)).allowed


async def test_no_sliding_window_holds_more_than_the_limit_and_nothing_is_refused_without_need(store):
    window, most, generator = 0.1, 300, random.Random(7)
    longest_count = window * (BUCKETS_IN_A_WINDOW + 1) / BUCKETS_IN_A_WINDOW
    limit, admitted = tokens_limit(most, window), []
    end = time.time() + 1.5
    while (before := time.time()) < end:
        tokens = generator.randint(1, 20)
        verdict = await store.take(f"r{before}", [limit], tokens, HOLD_SECONDS)
        after = time.time()
        if verdict.allowed:
            admitted.append((before, after, tokens))
        else:
            assert tokens + sum(t for _, a, t in admitted if a + longest_count >= before) > most
        if generator.random() < 0.02:
            await asyncio.sleep(generator.random() * 0.05)
    for first, (start, _, _) in enumerate(admitted):
        within = [tokens for _, after, tokens in admitted[first:] if after - start < window]
        assert sum(within) <= most


async def test_a_second_request_never_comes_within_a_window_of_the_first(store):
    limits = [requests_limit(1, 1.0, f"p{number}:requests") for number in range(10)]
    started = []
    for limit in limits:
        started.append(time.time())
        assert (await store.take(limit.key, [limit], 1, HOLD_SECONDS)).allowed
        await asyncio.sleep(random.random() / BUCKETS_IN_A_WINDOW)
    waiting = list(zip(limits, started, strict=True))
    while waiting:
        verdicts = await asyncio.gather(*[store.take("next", [limit], 1, HOLD_SECONDS) for limit, _ in waiting])
        now = time.time()
        assert all(now - start >= 1.0 for verdict, (_, start) in zip(verdicts, waiting, strict=True) if verdict.allowed)
        waiting = [entry for verdict, entry in zip(verdicts, waiting, strict=True) if not verdict.allowed]
