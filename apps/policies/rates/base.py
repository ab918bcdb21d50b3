"""What a rate limit is, what a store of counters answers, and the interface that every store has."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

BUCKETS_IN_A_WINDOW = 512
"""A window is counted in buckets of this fraction. An amount leaves only when its whole bucket has left the window,
so that no sliding window ever holds more than the limit; it counts for at most 1/512 of the window too long."""

SLOT_WAIT_SECONDS = 1.0
"""Nobody knows when a running request ends, so a caller who finds no free slot is told to come back after this, or
earlier where a slot expires earlier."""


class RatesUnavailable(Exception):
    """The counters cannot be reached, so nobody can tell whether the request is within its limits: a 503."""


class RateKind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``limit`` of ``kind`` in any window of ``window_seconds``, or at once where it is concurrent.

    ``key`` names the counter (``<policy id>:<kind>``); within one take every key differs. The limit may change from
    one take to the next and the count stays; another window is another counter. Raises ``ValueError`` for a window on a
    concurrent limit, or none on another.
    """

    key: str
    policy_id: str
    policy_name: str
    kind: RateKind
    limit: int
    window_seconds: float | None
    window_microseconds: int = field(init=False, repr=False)
    """The same as a whole number; 0 without a window."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "window_microseconds", round((self.window_seconds or 0) * 1_000_000))
        has_window = self.window_seconds is not None and self.window_seconds > 0
        if has_window == (self.kind is RateKind.CONCURRENT) or (self.window_seconds is not None and not has_window):
            msg = f"A limit on {self.kind} cannot have a window of {self.window_seconds} seconds"
            raise ValueError(msg)

    def cost(self, tokens: int) -> int:
        """What a request of ``tokens`` takes from this limit."""
        return tokens if self.kind is RateKind.TOKENS else 1


@dataclass(frozen=True, slots=True)
class RateReading:
    """What was left of a limit, and in how many seconds as much as was asked for is free again.

    ``reset_seconds`` is 0 if as much is free now, and ``math.inf`` if it is more than the limit can ever hold.
    """

    limit: RateLimit
    remaining: int
    reset_seconds: float

    def refuses(self, tokens: int) -> bool:
        """Whether a request of ``tokens`` does not fit into what is left."""
        return self.limit.cost(tokens) > self.remaining


@dataclass(frozen=True, slots=True)
class RateVerdict:
    """Whether a request may go on, and every limit's reading after the take or at the refusal.

    ``refused_by`` is the refusing limit with the longest wait and ``retry_after_seconds`` that wait: ``math.inf`` when
    waiting cannot help, because one request asks for more than the limit ever holds. ``degraded`` says that this
    process answered alone, with its share of each limit.
    """

    allowed: bool
    readings: tuple[RateReading, ...]
    refused_by: RateLimit | None
    retry_after_seconds: float
    degraded: bool = False

    @property
    def never_fits(self) -> bool:
        """Whether the request is too large for a limit, however long it waits."""
        return math.isinf(self.retry_after_seconds)


def allow(readings: Iterable[RateReading]) -> RateVerdict:
    """Say yes, with what is left after the take."""
    return RateVerdict(allowed=True, readings=tuple(readings), refused_by=None, retry_after_seconds=0.0)


def refuse(readings: Iterable[RateReading], tokens: int) -> RateVerdict:
    """Say no to a request of ``tokens``, naming the refusing limit with the longest wait."""
    readings = tuple(readings)
    longest = max((r for r in readings if r.refuses(tokens)), key=lambda r: r.reset_seconds)
    return RateVerdict(
        allowed=False, readings=readings, refused_by=longest.limit, retry_after_seconds=longest.reset_seconds
    )


class RateStore(Protocol):
    """Counters of rate limits.

    ``request_id`` is unique and made by the gateway, never a client's: two requests of one id would share a slot. Token
    counts are 0 or more. Each method may raise `RatesUnavailable`.
    """

    async def take(self, request_id: str, limits: Sequence[RateLimit], tokens: int, hold_seconds: float) -> RateVerdict:
        """Count the request in every limit, or in none if one refuses.

        ``tokens`` is the estimate. A slot that is never released (its process died) is free again after
        ``hold_seconds``, which must be longer than any request lasts: the take is forgotten then. A take that was
        cancelled, or that raised, may have counted: give it back.
        """
        ...

    async def release(self, request_id: str, limits: Sequence[RateLimit], tokens_taken: int, tokens_used: int) -> None:
        """Free the slots and correct the estimate to what was used; a second call, or an unknown id, does nothing.

        What was not used leaves the window it was counted in. What was used beyond the estimate is counted now, over
        the limit if need be, since it has been spent.
        """
        ...

    async def give_back(self, request_id: str, limits: Sequence[RateLimit], tokens: int) -> None:
        """Undo a take completely, for a later stage refused; a second call, or an unknown id, does nothing."""
        ...

    async def peek(self, limits: Sequence[RateLimit], tokens: int) -> tuple[RateReading, ...]:
        """Read what is left, as a request of ``tokens`` would find it, and count nothing."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
