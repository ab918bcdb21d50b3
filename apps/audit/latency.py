"""Latencies as counts within bounds: what can be summed up, and percentiles read from the sums."""

from collections.abc import Sequence

BOUNDS_MS = (
    50, 100, 200, 300, 400, 500, 700, 1000, 1400, 2000,
    2800, 4000, 5600, 8000, 11_000, 16_000, 22_000, 32_000, 64_000,
)  # fmt: skip
"""The upper bounds, in ms and included; the last count is of what took longer than all of them.

Neighbours are at most twice, mostly 1.4 times each other, so that a percentile read from the counts is that close.
"""
COLUMNS = tuple(f"latency_{number}" for number in range(len(BOUNDS_MS) + 1))
"""The columns of the counts."""
LONGEST_MS = 600_000
"""Where the last count is taken to end: what a call may take by default."""


def percentile(counts: Sequence[int], percent: float) -> int | None:
    """Return the latency in ms within which ``percent`` of the counted lie, read as if they were spread evenly
    between two bounds; ``None`` of nothing.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, before = total * percent / 100, 0
    for lower, upper, count in zip((0, *BOUNDS_MS), (*BOUNDS_MS, LONGEST_MS), counts, strict=True):
        if count and before + count >= wanted:
            return round(lower + (upper - lower) * (wanted - before) / count)
        before += count
    raise AssertionError
