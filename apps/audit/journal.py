"""The journal: one writer thread for each process that commits in groups what waits, then releases each waiter.

It owns a thread and a transaction and nothing else. What is written is decided by the ``run`` function it is given:
members in, results in the same order out, inside one transaction. Members that must never be lost say so with
``durable``; when the database does not take them they go to the spool and are replayed later.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.spool import Spool
from apps.audit.writer import LATER, SPOOLED, JournalUnavailable, Waiter, Writer

__all__ = ["LATER", "SPOOLED", "Journal", "JournalUnavailable", "Member", "Steps"]

logger = logging.getLogger(__name__)

DISK_SECONDS = 0.3
"""How long an answer waits for the spool's disk. The member waits in memory too, and its request is open till then."""


class Member(Protocol):
    """Something to commit. ``durable``: to be spooled rather than lost."""

    @property
    def durable(self) -> bool:
        """Whether it must be kept when the database is away."""
        ...


Run = Callable[[BaseDatabaseWrapper, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Steps:
    """What the journal's owner does inside and around its transaction.

    ``run`` writes a group and returns one result for each member. ``run_free`` does the same for the members that
    need no lock which somebody holds; the result of the others is `LATER`. ``undo`` turns a member whose waiter left
    before it learnt of the commit into the one that takes it back (or ``None``). ``dump`` and ``load`` are the
    spool's form. Running a durable member twice must do no harm.
    """

    run: Run
    run_free: Run
    undo: Callable[[Any, Any], Any | None]
    dump: Callable[[Any], str]
    load: Callable[[str], Any]


class Journal:
    """Commits members in groups. Starts its thread on first use in a process, and again after a fork."""

    _pid: int
    _start_lock: threading.Lock
    _writer: Writer | None
    _disk: ThreadPoolExecutor | None

    def __init__(self, steps: Steps, spool: Spool, wait_seconds: float, using: str = "default") -> None:
        self._steps = steps
        self._spool = spool
        self._wait_seconds = wait_seconds
        self._using = using
        self._forget()

    def start(self) -> None:
        """Start the thread before the first use: what a dead process left in the spool does not wait for a request."""
        self._start()

    async def post(self, member: Any) -> Any:
        """Commit a member and return its result; `SPOOLED` for a durable one that the database did not take.

        Raises `JournalUnavailable` if a member that is not durable was not committed in time.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(member, loop, loop.create_future())
        assert waiter.future is not None
        self._enqueue(waiter)
        expiry = loop.call_later(self._wait_seconds, _expire, waiter.future)
        try:
            return await waiter.future
        except JournalUnavailable:
            if not member.durable:
                raise
            await self._keep(waiter)
            return SPOOLED
        finally:
            expiry.cancel()

    def post_soon(self, member: Any) -> None:
        """Have a member committed, waiting for nothing."""
        self._enqueue(Waiter(member))

    def backlog(self) -> int:
        """Return how many members wait for the writer."""
        return self._writer.backlog() if self._writer is not None else 0

    def queue_age(self) -> float:
        """Return how long the oldest member has waited for the writer, in seconds; 0 if none does."""
        return self._writer.queue_age() if self._writer is not None else 0.0

    def spooled(self) -> int:
        """Return how many final records of this process wait for the database, on disk or for want of a disk."""
        return self._spool.pending + (self._writer.held() if self._writer is not None else 0)

    def stop(self, timeout: float = 1.5) -> None:
        """Write everything that waits, in ``timeout`` seconds to the database, else to the spool; end the thread."""
        with self._start_lock:
            writer, self._writer = self._writer, None
        if writer is not None and self._pid == os.getpid():
            writer.stop(timeout)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._start_lock = threading.Lock()
        self._writer = None
        self._disk = None

    def _enqueue(self, waiter: Waiter) -> None:
        if self._pid != os.getpid():
            self._forget()  # a forked child has the parent's memory and none of its threads
        writer = self._writer or self._start()
        while not writer.enqueue(waiter):  # it was being stopped just then
            writer = self._start()

    def _start(self) -> Writer:
        with self._start_lock:
            if self._writer is None or self._writer.stopped:
                self._writer = Writer(self._steps, self._spool, self._using)
            return self._writer

    async def _keep(self, waiter: Waiter) -> None:
        """Put a member on disk that the writer has not come to; it may be written twice, which does no harm.

        The disk has a thread of its own: one that hangs holds up nothing else.
        """
        if self._disk is None:
            self._disk = ThreadPoolExecutor(1, "spool")
        kept = asyncio.get_running_loop().run_in_executor(self._disk, self._spool_waiter, waiter)
        await asyncio.wait((kept,), timeout=DISK_SECONDS)

    def _spool_waiter(self, waiter: Waiter) -> None:
        try:
            self._spool.append([self._steps.dump(waiter.member)])
            waiter.spooled = True
        except Exception:
            logger.critical("The spool did not take a final record: it waits in memory.", exc_info=True)


def _expire(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(JournalUnavailable("The database did not commit in time."))
