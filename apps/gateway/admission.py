"""Who is let into the pipeline while there is more to do than a process can do, and who is sent away at once.

A request is at work, or it waits for somebody else: a client's body, a provider. Only what is at work costs, so only
that is bounded tightly (`in_flight`); whoever waits holds a little memory, and thousands of those, streams among them,
are held (`held`). What comes back from a wait goes on at once: it has been let in, and finishing it frees the most.

Whoever finds every place taken waits in a room, one queue for each organization; places go to the queues in turn, so
that one organization's flood delays its own requests and not its neighbour's. The room takes a burst in and gives it
time (`BURST_SECONDS`). A room that has not been empty for that long is no burst but overload: from then on, and until
nobody was shed for as long, it is short, and a newcomer who finds it full is shed at once, or whoever came last to the
longest queue is shed in its place.

Many places make the most of a process, and make everyone slow: each request shares the processor with all the others.
While one organization alone is in the way of itself, the first counts. Once several are, the places are shared: the one
with the longest queue has fewer of them, and its requests go step by step behind those of all others (`pacing`).
Whoever asks for little goes past the room, and finds the process nearly as quick as if it were alone.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

from apps.gateway import metrics
from apps.gateway.errors import Overloaded
from apps.gateway.pacing import Pace

BURST_SECONDS = 1.0
"""How long the room may go without being empty before that is overload; also the longest wait in it."""
BURST_ROOM = 4
"""Places in the room in a burst, for each place at work."""
OVERLOAD_ROOM = 1 / 8
"""The same while there is overload, for each organization that waits: a flood fills its own room and no other's. Who
waits in vain costs more than who is sent away at once."""
OVERLOAD_SECONDS = 0.02
"""The longest wait in the room while there is overload, for the longest queue: another's turn comes soon enough."""

SHARED_PLACES = 1 / 4
"""How much of the places at work is given to the queues while several organizations wait, and as much again to those
that go past the room."""

Organization = UUID | None
"""Whose a request is, as far as memory knows; everybody whom it does not know is one."""


class Signal(StrEnum):
    """Why a request was shed."""

    IN_FLIGHT = "in_flight"
    JOURNAL_QUEUE_AGE = "journal_queue_age"
    FAIR_SHARE = "fair_share"


class Ticket:
    """A request's place. Whoever has it closes it, once or more often, whichever way the request ends.

    ``paced``: the steps of its work wait for their turns. ``light``: it went past the room.
    """

    __slots__ = ("_admission", "_light", "_open", "_working", "paced")

    def __init__(self, admission: "Admission", *, light: bool = False, paced: bool = False) -> None:
        self._admission = admission
        self._open = self._working = True
        self._light = light
        self.paced = paced

    def aside(self) -> "Aside":
        """Leave the place to others while this request waits: ``with ticket.aside(): await ...``."""
        return Aside(self)

    def step_aside(self) -> None:
        """Leave the place to others until `close` or `come_back`."""
        if self._working:
            self._working = False
            if self._light:
                self._light = False
                self._admission.light -= 1
            self._admission.leave()

    def come_back(self) -> None:
        """Be at work again, whether or not there is a place."""
        if self._open and not self._working:
            self._working = True
            self._admission.working += 1

    def close(self) -> None:
        """Be gone."""
        if self._open:
            self._open = False
            self._admission.held -= 1
            self.step_aside()


class Aside:
    """A wait, which gives the place away only if it is one: what is there already is waited for in no time."""

    __slots__ = ("_handle", "_ticket")

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def __enter__(self) -> Self:
        self._handle = asyncio.get_running_loop().call_soon(self._ticket.step_aside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        self._ticket.come_back()


class Admission:
    """The places of one process, on one event loop.

    ``in_flight``: most requests at work; ``held``: most requests that are let in at all, streams included;
    ``queue_age``: seconds that the oldest member has waited for the journal, and ``longest_queue_age`` the most there
    may be. A request that would overrun one of them is shed with `Overloaded`.
    """

    def __init__(
        self,
        *,
        in_flight: int,
        held: int,
        longest_queue_age: float,
        queue_age: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_working, self.most_held, self.longest_queue_age = in_flight, held, longest_queue_age
        self.working = self.held = self.waiting = self.light = 0
        self.pace = Pace(self._is_shared)
        self._shared_places = max(1, int(in_flight * SHARED_PLACES))
        self._queue_age = queue_age
        self._clock = clock
        self._room: OrderedDict[Organization, deque[asyncio.Future[None]]] = OrderedDict()
        self._occupied_since = 0.0
        self._overloaded_until = 0.0
        self._last_to_wait: Organization = None
        self._heaviest: Organization = None
        self._shared_until = 0.0

    async def enter(self, whose: Callable[[], Organization]) -> Ticket:
        """Let a request in, now or when its turn comes. Raises `Overloaded`.

        ``whose`` is asked only if there is no place at once.
        """
        self.check(whose)
        if not self.waiting and self.working < self.places:
            self._let_in()
            return Ticket(self)
        organization = whose()
        if self._goes_past(organization):
            self._shared_until = self._clock() + BURST_SECONDS
            self._let_in()
            self.light += 1
            return Ticket(self, light=True)
        has_much_to_do = await self._wait(organization)  # whoever made room has let us in
        return Ticket(self, paced=has_much_to_do)

    def check(self, whose: Callable[[], Organization]) -> None:
        """Raise `Overloaded` where `enter` would, without waiting."""
        if self.held + self.waiting >= self.most_held:
            raise self._shed(Signal.IN_FLIGHT)
        if self._queue_age() > self.longest_queue_age:
            raise self._shed(Signal.JOURNAL_QUEUE_AGE)
        if self.waiting >= self._places_to_wait():
            organization = whose()
            if not self._goes_past(organization) and not self._is_behind(organization, 1):
                alone = len(self._room) == 1 and organization in self._room
                raise self._shed(Signal.IN_FLIGHT if alone else Signal.FAIR_SHARE)

    def leave(self) -> None:
        """Give a place back, to the next queue's first if there is one."""
        self.working -= 1
        while self.waiting and self.working < self.places:
            organization, queue = next(iter(self._room.items()))
            turn = queue.popleft()
            self._forget_one(organization, queue)
            if organization in self._room:
                self._room.move_to_end(organization)
            if not turn.done():
                self._let_in()
                turn.set_result(None)

    @property
    def places(self) -> int:
        """How many requests may be at work now."""
        return self._shared_places + self.light if self._is_shared() else self.most_working

    @property
    def overloaded(self) -> bool:
        """Whether more comes than can be done, and has for longer than a burst lasts."""
        now = self._clock()
        return now < self._overloaded_until or (self.waiting > 0 and now - self._occupied_since > BURST_SECONDS)

    def _places_to_wait(self) -> int:
        if not self.overloaded:
            return self.most_working * BURST_ROOM
        return max(1, int(self.most_working * OVERLOAD_ROOM)) * max(1, len(self._room))

    def _goes_past(self, organization: Organization) -> bool:
        """Whether a newcomer need not wait in the room: it asks for less than others, and there is a place for such."""
        return self._is_shared() and organization != self._heaviest and self.light < self._shared_places

    def _is_behind(self, organization: Organization, newcomers: int) -> bool:
        """Whether another queue would be longer even with so many newcomers in this one's."""
        return len(self._room.get(organization, ())) + newcomers < len(self._room[self._longest()])

    def _let_in(self) -> None:
        self.working += 1
        self.held += 1

    def _is_shared(self) -> bool:
        return bool(self._shared_until) and self._clock() < self._shared_until

    async def _wait(self, organization: Organization) -> bool:
        """Wait for a place. Return whether that was in the longest queue of several; raise `Overloaded`."""
        room = self._places_to_wait()
        while self.waiting > room:  # the burst became an overload: its last are too many
            self._shed_last_of(self._longest(), Signal.IN_FLIGHT)
        if self.waiting == room:
            self._shed_last_of(self._longest(), Signal.FAIR_SHARE)
        impatient = self.overloaded and not (self._room and self._is_behind(organization, 1))
        turn = self._queue_up(organization)
        patience = OVERLOAD_SECONDS if impatient else BURST_SECONDS
        expiry = asyncio.get_running_loop().call_later(patience, self._expire, organization, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(organization, turn)
            raise
        finally:
            expiry.cancel()
            del turn  # who was shed would hold itself: the future its error, the error this frame
        return impatient and self._is_shared()

    def _longest(self) -> Organization:
        return max(self._room, key=lambda organization: len(self._room[organization]))

    def _shed_last_of(self, organization: Organization, signal: Signal) -> None:
        queue = self._room[organization]
        turn = queue.pop()
        self._forget_one(organization, queue)
        if not turn.done():
            turn.set_exception(self._shed(signal))

    def _queue_up(self, organization: Organization) -> "asyncio.Future[None]":
        now = self._clock()
        if not self.waiting:
            self._occupied_since = now
        if self._last_to_wait not in (None, organization) and self.overloaded:
            self._shared_until = now + BURST_SECONDS
        self._last_to_wait = organization
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.setdefault(organization, deque()).append(turn)
        self.waiting += 1
        self._heaviest = self._longest()
        return turn

    def _expire(self, organization: Organization, turn: "asyncio.Future[None]", *, spared: bool = False) -> None:
        """Shed who has waited too long. Whose queue is not the longest has waited for others: it may wait on."""
        if turn.done():
            return
        if not spared and self._is_behind(organization, 0):
            spare = partial(self._expire, organization, turn, spared=True)
            asyncio.get_running_loop().call_later(BURST_SECONDS, spare)
            return
        self._remove(organization, turn)
        turn.set_exception(self._shed(Signal.IN_FLIGHT))

    def _withdraw(self, organization: Organization, turn: "asyncio.Future[None]") -> None:
        """Take back a wait that was cancelled, and the place if it had just been given."""
        if turn.cancelled() or turn.exception() is not None:
            self._remove(organization, turn)
        else:
            self.held -= 1
            self.leave()

    def _remove(self, organization: Organization, turn: "asyncio.Future[None]") -> None:
        queue = self._room.get(organization)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._forget_one(organization, queue)

    def _forget_one(self, organization: Organization, queue: "deque[asyncio.Future[None]]") -> None:
        self.waiting -= 1
        if not queue:
            del self._room[organization]

    def _shed(self, signal: Signal) -> Overloaded:
        if self.overloaded:
            self._overloaded_until = self._clock() + BURST_SECONDS
        metrics.shed(signal.value)
        return Overloaded(signal.value)
