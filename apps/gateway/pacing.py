"""Turns at the processor for requests that are at work: who has much to do goes step by step behind who has little.

An event loop has no priorities: whatever became ready runs, in the order in which it did. A request that comes beside
sixteen others of one organization so waits for sixteen at each of its steps. Here those sixteen go on one at a time,
one step in each round of the loop, and what became ready for anybody else in the meantime goes between them. Nothing
waits while there is nothing else to do, so it costs them no more than the loop's rounds.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Pace:
    """The turns of one event loop. ``is_on`` says whether anybody has to wait for one."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        self.is_on = is_on
        self._waiting: deque[asyncio.Future[None]] = deque()

    def turn(self) -> "asyncio.Future[None]":
        """Return what is done when it is one's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._next, loop)
        self._waiting.append(turn)
        return turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._waiting.popleft()
        if not turn.done():
            turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._next, loop)


class Paced(Awaitable[T]):
    """A coroutine whose steps wait for their turns, but for the first: whoever starts it has been let in just now."""

    def __init__(self, work: Coroutine[Any, Any, T], pace: Pace) -> None:
        self._work, self._pace = work, pace

    def __await__(self) -> Generator[Any, Any, T]:
        """Await the work. What it waits for is handed on as it is, and so is every error that ends a wait."""
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                yield waits_for
                step = partial(self._work.send, None)
                if self._pace.is_on():
                    yield from self._pace.turn()
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # noqa: BLE001 (whatever ends a wait is for the work to see)
                step = partial(self._work.throw, error)
