"""The long forms of the tests: `make torture`, or ``python -m torture [part of a name ...]``.

A long test is a function under `long_test` in a module of this package; modules are found by themselves. It gets an
empty folder, asserts what must hold and returns its figures. PostgreSQL and Redis run (DATABASE_URL, REDIS_URL, which a
`ServerProcess` inherits), and Django is set up on a database of its own. The short forms are below ``tests/``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis import settings

Figures = Mapping[str, object]


@dataclass(frozen=True)
class LongTest:
    name: str
    seconds: int
    run: Callable[[Path], Figures]


LONG_TESTS: dict[str, LongTest] = {}


def long_test(seconds: int) -> Callable[[Callable[[Path], Figures]], Callable[[Path], Figures]]:
    """Name a function as a long test that may take so many seconds."""

    def register(run: Callable[[Path], Figures]) -> Callable[[Path], Figures]:
        LONG_TESTS[run.__name__] = LongTest(run.__name__, seconds, run)
        return run

    return register


def machine_settings(examples: int, steps: int) -> "settings":
    """Return how a state machine of hypothesis is run at length: drawn anew each time, and not timed."""
    from hypothesis import HealthCheck, settings

    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
