"""Counters in this process's memory."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol, cast

from apps.policies.rates.base import (
    BUCKETS_IN_A_WINDOW,
    SLOT_WAIT_SECONDS,
    RateKind,
    RateLimit,
    RateReading,
    RateVerdict,
    allow,
    refuse,
)

SWEEP_SECONDS = 30.0
SPARE_ENTRIES = 64


class Counter(Protocol):
    """The count behind one limit."""

    def held(self, request_id: str, now: float) -> int:
        """How much is counted at ``now`` that ``request_id`` would have to share the limit with."""
        ...

    def wait(self, amount: int, now: float) -> float:
        """Seconds until ``amount`` of what is counted has left."""
        ...

    def is_empty(self, now: float) -> bool:
        """Whether nothing is counted any more."""
        ...


@dataclass(slots=True)
class Window:
    """Amounts by bucket, oldest first, with their running total; at most 513 buckets."""

    seconds: float
    total: int = 0
    buckets: OrderedDict[int, int] = field(default_factory=OrderedDict)

    def held(self, request_id: str, now: float) -> int:
        """How much is counted, once the buckets that ended a window ago are gone."""
        horizon = self._index(now) - BUCKETS_IN_A_WINDOW
        while self.buckets and next(iter(self.buckets)) < horizon:
            self.total -= self.buckets.popitem(last=False)[1]
        return self.total

    def add(self, amount: int, now: float) -> None:
        """Count ``amount`` now."""
        if amount:
            index = self._index(now)
            self.buckets[index] = self.buckets.get(index, 0) + amount
            self.total += amount

    def take_out(self, amount: int, counted_at: float) -> None:
        """Take up to ``amount`` out of the bucket it was counted in, if that is still there."""
        index = self._index(counted_at)
        amount = min(amount, self.buckets.get(index, 0))
        if amount:
            self.buckets[index] -= amount
            self.total -= amount

    def wait(self, amount: int, now: float) -> float:
        """Seconds until the oldest buckets, ``amount`` together, have left; infinite if there is not as much."""
        for index, counted in self.buckets.items():
            amount -= counted
            if amount <= 0:
                return max(0.0, (index + 1 + BUCKETS_IN_A_WINDOW) * self.seconds / BUCKETS_IN_A_WINDOW - now)
        return math.inf

    def is_empty(self, now: float) -> bool:
        """Whether every bucket has left the window."""
        self.held("", now)
        return not self.buckets

    def _index(self, at: float) -> int:
        return math.floor(at * BUCKETS_IN_A_WINDOW / self.seconds)


@dataclass(slots=True)
class Slots:
    """Running requests, each with the time when its slot is free even if nobody releases it.

    ``queue`` is a heap of the same ends, earliest first; an entry whose request has gone is dropped when it is met.
    """

    ends: dict[str, float] = field(default_factory=dict)
    queue: list[tuple[float, str]] = field(default_factory=list)

    def held(self, request_id: str, now: float) -> int:
        """How many other requests run."""
        while self.queue and (self.queue[0][0] <= now or not self._is_current(self.queue[0])):
            entry = heappop(self.queue)
            if self._is_current(entry):
                del self.ends[entry[1]]
        return len(self.ends) - (request_id in self.ends)

    def add(self, request_id: str, end: float) -> None:
        """Let a request run until ``end``."""
        self.ends[request_id] = end
        heappush(self.queue, (end, request_id))
        if len(self.queue) > 2 * len(self.ends) + SPARE_ENTRIES:
            self.queue = [(end, name) for name, end in self.ends.items()]
            heapify(self.queue)

    def remove(self, request_id: str) -> None:
        """Free the slot of a request, if it has one."""
        self.ends.pop(request_id, None)

    def wait(self, amount: int, now: float) -> float:
        """Seconds to wait before asking again."""
        return min(SLOT_WAIT_SECONDS, self.queue[0][0] - now)

    def is_empty(self, now: float) -> bool:
        """Whether nothing runs any more."""
        return not self.held("", now)

    def _is_current(self, entry: tuple[float, str]) -> bool:
        return self.ends.get(entry[1]) == entry[0]


@dataclass(frozen=True, slots=True)
class Receipt:
    """When a request was counted, and until when that is remembered."""

    counted_at: float
    ends: float


class MemoryRateStore:
    """Counters for one process. Any thread and any event loop may use it; all times are seconds of ``clock``.

    What has expired is dropped, so memory is bounded by what happened within the longest window.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, float], Window] = {}
        self._slots: dict[str, Slots] = {}
        self._receipts: dict[str, Receipt] = {}
        self._next_sweep = -math.inf

    async def take(self, request_id: str, limits: Sequence[RateLimit], tokens: int, hold_seconds: float) -> RateVerdict:
        """Count the request in every limit, or in none if one refuses."""
        if not limits:
            return allow(())
        with self._lock:
            now = self._clock()
            self._sweep(now)
            before = [self._reading(limit, request_id, tokens, now) for limit in limits]
            if any(reading.refuses(tokens) for reading in before):
                return refuse(before, tokens)
            for limit in limits:
                self._count(limit, request_id, tokens, now, hold_seconds)
            self._receipts[request_id] = Receipt(now, now + hold_seconds)
            return allow(self._after(reading, tokens, now) for reading in before)

    async def release(self, request_id: str, limits: Sequence[RateLimit], tokens_taken: int, tokens_used: int) -> None:
        """Free the slots and correct the estimate to what was used."""
        with self._lock:
            receipt, now = self._settle(request_id, limits)
            if receipt is None:
                return
            for limit in limits:
                if limit.kind is RateKind.TOKENS:
                    self._window(limit).take_out(max(0, tokens_taken - tokens_used), receipt.counted_at)
                    self._window(limit).add(max(0, tokens_used - tokens_taken), now)

    async def give_back(self, request_id: str, limits: Sequence[RateLimit], tokens: int) -> None:
        """Undo a take completely."""
        with self._lock:
            receipt, _ = self._settle(request_id, limits)
            if receipt is None:
                return
            for limit in limits:
                if limit.kind is not RateKind.CONCURRENT:
                    self._window(limit).take_out(limit.cost(tokens), receipt.counted_at)

    async def peek(self, limits: Sequence[RateLimit], tokens: int) -> tuple[RateReading, ...]:
        """Read what is left, as a request of ``tokens`` would find it."""
        with self._lock:
            now = self._clock()
            return tuple(self._reading(limit, "", tokens, now) for limit in limits)

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def has_taken(self, request_id: str) -> bool:
        """Whether a take of ``request_id`` was counted here and is neither released nor given back."""
        return request_id in self._receipts

    def __len__(self) -> int:
        """How many counters and receipts are in memory."""
        return len(self._windows) + len(self._slots) + len(self._receipts)

    def _window(self, limit: RateLimit) -> Window:
        seconds = cast("float", limit.window_seconds)
        name = (limit.key, seconds)
        return self._windows.get(name) or self._windows.setdefault(name, Window(seconds))

    def _counter(self, limit: RateLimit) -> Counter:
        if limit.kind is RateKind.CONCURRENT:
            return self._slots.get(limit.key) or self._slots.setdefault(limit.key, Slots())
        return self._window(limit)

    def _reading(self, limit: RateLimit, request_id: str, tokens: int, now: float) -> RateReading:
        held = self._counter(limit).held(request_id, now)
        return RateReading(limit, max(0, limit.limit - held), self._reset(limit, held, tokens, now))

    def _after(self, before: RateReading, tokens: int, now: float) -> RateReading:
        limit, remaining = before.limit, before.remaining - before.limit.cost(tokens)
        return RateReading(limit, remaining, self._reset(limit, limit.limit - remaining, tokens, now))

    def _reset(self, limit: RateLimit, held: int, tokens: int, now: float) -> float:
        cost = limit.cost(tokens)
        if cost > limit.limit:
            return math.inf
        excess = held + cost - limit.limit
        return self._counter(limit).wait(excess, now) if cost and excess > 0 else 0.0

    def _count(self, limit: RateLimit, request_id: str, tokens: int, now: float, hold_seconds: float) -> None:
        if limit.kind is RateKind.CONCURRENT:
            self._slots[limit.key].add(request_id, now + hold_seconds)
        else:
            self._window(limit).add(limit.cost(tokens), now)

    def _settle(self, request_id: str, limits: Sequence[RateLimit]) -> tuple[Receipt | None, float]:
        for limit in limits:
            if limit.kind is RateKind.CONCURRENT and limit.key in self._slots:
                self._slots[limit.key].remove(request_id)
        now, receipt = self._clock(), self._receipts.pop(request_id, None)
        return (receipt if receipt and receipt.ends > now else None), now

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        self._windows = {name: window for name, window in self._windows.items() if not window.is_empty(now)}
        self._slots = {name: slots for name, slots in self._slots.items() if not slots.is_empty(now)}
        self._receipts = {name: receipt for name, receipt in self._receipts.items() if receipt.ends > now}
