"""A thousand changes, each of which must hold for the next request in four processes, with Redis and without."""

import time
from pathlib import Path

from tests.gateway.everywhere import everywhere, failed
from torture import Figures, long_test

TRIALS = 1_000


@long_test(900)
def a_change_holds_for_the_next_request_without_redis(folder: Path) -> Figures:
    """Each process counts rates alone, and knows of changes from PostgreSQL."""
    return _trials(folder, REDIS_URL=None)


@long_test(900)
def a_change_holds_for_the_next_request_with_redis(folder: Path) -> Figures:
    """The same with Redis."""
    return _trials(folder)


def _trials(folder: Path, **settings: str | None) -> Figures:
    with everywhere(folder, **settings) as servers:
        started = time.monotonic()
        trials = servers.trials(TRIALS)
        wrong = failed(trials)
    assert not wrong, f"{len(wrong)} of {len(trials)}: {wrong[:5]}"
    return {
        "trials": len(trials),
        "requests": len(trials) * len(servers.servers),
        "late": len(wrong),
        "of trials a second": f"{len(trials) / (time.monotonic() - started):.1f}",
    }
