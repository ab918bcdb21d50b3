"""Processes of their own that ask for more than a shared limit allows, and what no sliding window may hold.

A process prints, for each take that was admitted, the time before it and the time after it (seconds of the machine's
monotonic clock, which all processes share); the take happened in between.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, requests_limit

ROOT = Path(__file__).resolve().parents[2]
WINDOW_SECONDS = 1.0
Taken = tuple[float, float]
Said = dict[str, object]


@dataclass(frozen=True)
class Steady:
    """What all processes together saw. ``seconds``: from the first take to the last."""

    limit: int
    asked: int
    admitted: list[Taken]
    seconds: float

    def most_in_a_window(self) -> int:
        """Return the most takes that are sure to have happened within one window, wherever it begins."""
        taken, most = sorted(self.admitted), 0
        for first, (start, _) in enumerate(taken):
            last = bisect_left(taken, (start + WINDOW_SECONDS, 0.0))
            most = max(most, sum(after < start + WINDOW_SECONDS for _, after in taken[first:last]))
        return most


def take_steadily(url: str, prefix: str, *, limit: int, processes: int, seconds: float) -> Steady:
    """Ask for twice the limit, evenly, from so many processes."""
    start, per_second = time.monotonic() + 2.0 + processes / 2, 2 * limit
    running = []
    for number in range(processes):
        # One after the other, as callers who know nothing of each other come; asked at once, all would miss together.
        first = start + number / per_second
        arguments = [url, prefix, limit, per_second / processes, seconds, first]
        command = [sys.executable, "-m", "tests.rates.take_steadily", *map(str, arguments)]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    said = [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in running]
    admitted = [(before, after) for one in said for before, after in one["admitted"]]
    begun, ended = min(one["begun"] for one in said), max(one["ended"] for one in said)
    return Steady(limit, sum(one["asked"] for one in said), admitted, ended - begun)


async def _take(
    url: str, prefix: str, limit: int, per_second: float, seconds: float, start: float
) -> dict[str, object]:
    store = RedisRateStore(url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    limits = [requests_limit(limit, WINDOW_SECONDS)]
    await store.peek(limits, 0)  # connects
    admitted: list[Taken] = []

    async def one(number: int) -> None:
        before = time.monotonic()
        verdict = await store.take(f"{os.getpid()}-{number}", limits, 0, HOLD_SECONDS)
        if verdict.allowed:
            admitted.append((before, time.monotonic()))

    asked, tasks = int(per_second * seconds), []
    await asyncio.sleep(max(0.0, start - time.monotonic()))
    begun = time.monotonic()
    for number in range(asked):
        await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.gather(*tasks)
    await store.close()
    return {"begun": begun, "ended": time.monotonic(), "asked": asked, "admitted": admitted}


if __name__ == "__main__":
    _url, _prefix = sys.argv[1:3]
    _limit, _per_second, _seconds, _start = sys.argv[3:]
    print(
        json.dumps(asyncio.run(_take(_url, _prefix, int(_limit), float(_per_second), float(_seconds), float(_start))))
    )
