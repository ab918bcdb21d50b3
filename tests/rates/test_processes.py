"""One limit over several processes: under steady load, and when one of them is killed."""

import asyncio
import signal
import subprocess
import sys

from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, concurrent_limit
from tests.rates.take_steadily import ROOT, Steady, take_steadily


def test_twice_the_limit_from_four_processes_is_admitted_up_to_the_limit_and_no_window_holds_more(redis_server, prefix):
    seen = take_steadily(redis_server.url, prefix, limit=50, processes=4, seconds=2.5)
    assert seen.asked == 248
    assert len(seen.admitted) <= 50 * (seen.seconds + 1)
    assert len(seen.admitted) >= 50
    assert seen.most_in_a_window() <= seen.limit


def test_takes_that_surely_fall_into_one_window_are_counted_wherever_it_begins():
    taken = [(0.0, 0.1), (0.5, 0.6), (0.9, 1.2), (1.05, 1.1), (1.3, 1.4)]
    assert Steady(2, 5, taken, 1.4).most_in_a_window() == 4


def test_the_slot_of_a_killed_process_is_free_after_its_hold(redis_server, prefix):
    command = [sys.executable, "-m", "tests.rates.hold_a_slot", redis_server.url, prefix, "2"]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    asyncio.run(_take_the_slot(redis_server.url, prefix))


async def _take_the_slot(url, prefix):
    """Try until the slot is free; the test's own time bounds it."""
    store = RedisRateStore(url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    while not (await store.take("next", [concurrent_limit(1)], 0, HOLD_SECONDS)).allowed:
        await asyncio.sleep(0.05)
    await store.close()
