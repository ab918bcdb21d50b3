"""Redis's clock is set back while limits are counted by it."""

import pytest

from apps.policies.rates import redis as store_module
from apps.policies.rates import scripts
from tests.rates.conftest import HOLD_SECONDS, requests_limit

pytestmark = pytest.mark.anyio

REAL_CLOCK = "tonumber(clock[2])\n"


@pytest.fixture
def ahead(monkeypatch):
    """Let the scripts read a clock that is ahead by so many seconds, until it is set back."""
    with monkeypatch.context() as patched:

        def move(seconds):
            assert scripts._COMMON.count(REAL_CLOCK) == 1
            moved = scripts._COMMON.replace(REAL_CLOCK, f"{REAL_CLOCK.strip()} + {seconds * 10**6}\n")
            patched.setattr(scripts, "_COMMON", moved)
            patched.setattr(store_module, "TAKE", scripts.Script(scripts._TAKE))

        yield move, patched.undo


async def test_a_clock_that_is_set_back_goes_on_with_the_count(redis_store, ahead):
    move, set_back = ahead
    limits = [requests_limit(3, 60.0)]
    move(30)
    assert [(await redis_store.take(name, limits, 0, HOLD_SECONDS)).allowed for name in "ab"] == [True] * 2
    set_back()
    assert [(await redis_store.take(name, limits, 0, HOLD_SECONDS)).allowed for name in "cd"] == [True, False]


async def test_a_clock_that_is_set_back_by_more_than_a_window_starts_afresh(redis_store, ahead):
    move, set_back = ahead
    limits = [requests_limit(3, 60.0)]
    move(3600)
    assert [(await redis_store.take(name, limits, 0, HOLD_SECONDS)).allowed for name in "abcd"] == [True] * 3 + [False]
    set_back()
    assert [(await redis_store.take(name, limits, 0, HOLD_SECONDS)).allowed for name in "efgh"] == [True] * 3 + [False]
