"""The journal: one writer thread for each process that commits in groups what waits, then releases each waiter.

It owns a thread and a transaction and nothing else. What is written is decided by the ``run`` function it is given:
members in, results in the same order out, inside one transaction. Members that must never be lost say so with
``durable``; when the database does not take them they go to the spool and are replayed later.
"""

import asyncio
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.prepared import OUTDATED
from apps.audit.spool import Spool

logger = logging.getLogger(__name__)

LARGEST_GROUP = 256
LOCK_TIMEOUT_MS = 200
STATEMENT_TIMEOUT_MS = 5_000
TRIES = 4
SPOOL_POLL_SECONDS = 1.0
_RETRIED = frozenset({"40001", "40P01"}) | OUTDATED  # serialization failure, deadlock
_LOCK_NOT_AVAILABLE = "55P03"


class JournalUnavailable(Exception):
    """The database did not commit in time; nothing may be called on the strength of this member."""


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

    ``run`` writes a group and returns one result for each member; ``undo`` turns a member whose waiter left before
    it learnt of the commit into the one that takes it back (or ``None``); ``dump`` and ``load`` are the spool's form.
    """

    run: Run
    undo: Callable[[Any, Any], Any | None]
    dump: Callable[[Any], str]
    load: Callable[[str], Any]


SPOOLED = object()
"""The result of a durable member that waits on disk for the database."""


@dataclass(slots=True, eq=False)
class _Waiter:
    member: Any
    loop: asyncio.AbstractEventLoop | None = None
    future: "asyncio.Future[Any] | None" = None
    since: float = field(default_factory=time.monotonic)


class Journal:
    """Commits members in groups. Starts its thread on first use in a process, and again after a fork."""

    def __init__(self, steps: Steps, spool: Spool, wait_seconds: float, using: str = "default") -> None:
        self._steps = steps
        self._spool = spool
        self._wait_seconds = wait_seconds
        self._using = using
        self._forget()

    async def post(self, member: Any) -> Any:
        """Commit a member and return its result; `SPOOLED` for a durable one that the database did not take.

        Raises `JournalUnavailable` if a member that is not durable was not committed in time.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(member, loop, loop.create_future())
        assert waiter.future is not None
        self._enqueue(waiter)
        expiry = loop.call_later(self._wait_seconds, _expire, waiter.future)
        try:
            return await waiter.future
        except JournalUnavailable:
            if not member.durable:
                raise
            await loop.run_in_executor(None, self._spool.append, [self._steps.dump(member)])
            return SPOOLED
        finally:
            expiry.cancel()

    def post_soon(self, member: Any) -> None:
        """Have a member committed, waiting for nothing."""
        self._enqueue(_Waiter(member))

    def backlog(self) -> int:
        """Return how many members wait for the writer."""
        return len(self._queue)

    def queue_age(self) -> float:
        """Return how long the oldest member has waited for the writer, in seconds; 0 if none does."""
        try:
            return time.monotonic() - self._queue[0].since
        except IndexError:
            return 0.0

    def spooled(self) -> int:
        """Return how many final records of this process wait on disk."""
        return self._spool.pending

    def stop(self, timeout: float = 5.0) -> None:
        """Write everything that waits, then end the thread."""
        thread = self._thread
        if thread is None or self._pid != os.getpid():
            return
        self._stopping = True
        self._wake.set()
        thread.join(timeout)
        self._forget()

    # --- the writer's thread

    def _forget(self) -> None:
        self._queue: deque[_Waiter] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._stopping = False
        self._start_lock = threading.Lock()

    def _enqueue(self, waiter: _Waiter) -> None:
        if self._pid != os.getpid():
            self._forget()  # a forked child has the parent's memory and none of its threads
        if self._thread is None:
            self._start()
        self._queue.append(waiter)
        if not self._wake.is_set():
            self._wake.set()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        next_replay = 0.0
        try:
            while True:
                self._wake.wait(SPOOL_POLL_SECONDS)
                self._wake.clear()
                while self._queue:
                    self._write(self._take())
                if self._stopping and not self._queue:
                    return
                if time.monotonic() >= next_replay:
                    self._replay()
                    next_replay = time.monotonic() + SPOOL_POLL_SECONDS
        finally:
            connections[self._using].close()

    def _take(self) -> list[_Waiter]:
        group: list[_Waiter] = []
        while self._queue and len(group) < LARGEST_GROUP:
            waiter = self._queue.popleft()
            if waiter.future is not None and waiter.future.done() and not waiter.member.durable:
                continue  # nobody waits for this intent any more: it must not be committed
            group.append(waiter)
        return group

    def _write(self, group: list[_Waiter]) -> None:
        if not group:
            return
        try:
            results = self._commit([w.member for w in group])
        except (OperationalError, InterfaceError) as error:
            if len(group) > 1 and _sqlstate(error) == _LOCK_NOT_AVAILABLE:
                self._write_apart(group)
            else:
                self._fail(group, error)
        except Exception as error:  # noqa: BLE001 (whatever one member breaks must not fail its neighbours)
            if len(group) > 1:
                self._write_apart(group)
            else:
                self._reject(group[0], error)
        else:
            self._release(group, results)

    def _write_apart(self, group: list[_Waiter]) -> None:
        middle = len(group) // 2
        self._write(group[:middle])
        self._write(group[middle:])

    def _commit(self, members: Sequence[Any]) -> Sequence[Any]:
        connection = connections[self._using]
        for attempt in range(TRIES):
            try:
                self._ready(connection)
                with transaction.atomic(using=self._using):
                    return self._steps.run(connection, members)
            except DatabaseError as error:
                broken = isinstance(error, OperationalError | InterfaceError) and not _sqlstate(error)
                if connection.vendor == "postgresql" and broken:
                    connection.close()
                if attempt == TRIES - 1 or not _worth_another_try(connection, error, attempt):
                    raise
                time.sleep(random.uniform(0.001, 0.01) * (attempt + 1))  # noqa: S311 (spreads retries, no secret)
        raise AssertionError

    def _ready(self, connection: BaseDatabaseWrapper) -> None:
        if connection.connection is not None:
            return
        connection.ensure_connection()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}")

    def _release(self, group: Sequence[_Waiter], results: Sequence[Any]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiter, Any]]] = {}
        for waiter, result in zip(group, results, strict=True):
            if waiter.loop is not None:
                by_loop.setdefault(waiter.loop, []).append((waiter, result))
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._resolve, pairs)
            except RuntimeError:  # that loop has closed: its waiters left
                for waiter, result in pairs:
                    self._take_back(waiter, result)

    def _resolve(self, pairs: Sequence[tuple[_Waiter, Any]]) -> None:
        for waiter, result in pairs:
            assert waiter.future is not None
            if waiter.future.done():
                self._take_back(waiter, result)
            elif isinstance(result, Exception):
                waiter.future.set_exception(result)
            else:
                waiter.future.set_result(result)

    def _take_back(self, waiter: _Waiter, result: Any) -> None:
        reverse = self._steps.undo(waiter.member, result)
        if reverse is not None:
            self.post_soon(reverse)

    def _fail(self, group: Sequence[_Waiter], error: Exception) -> None:
        logger.error("The journal could not commit a group of %d: %s.", len(group), type(error).__name__)
        durable = [w for w in group if w.member.durable]
        results: dict[int, Any] = {}
        if durable:
            try:
                self._spool.append([self._steps.dump(w.member) for w in durable])
                results = dict.fromkeys(map(id, durable), SPOOLED)
            except OSError:
                logger.critical("The spool could not take %d final records.", len(durable), exc_info=True)
        unavailable = JournalUnavailable("The database did not commit.")
        self._release(group, [results.get(id(w), unavailable) for w in group])

    def _reject(self, waiter: _Waiter, error: Exception) -> None:
        logger.error("The journal rejected a member.", exc_info=error)
        if waiter.member.durable:
            self._spool.reject(self._steps.dump(waiter.member))
        self._release([waiter], [SPOOLED if waiter.member.durable else JournalUnavailable("The database refused.")])

    def _replay(self) -> None:
        try:
            self._spool.replay(self._write_spooled)
        except (DatabaseError, InterfaceError, OSError):
            return  # still away: the lines stay where they are
        except Exception:
            logger.exception("A spooled final record could not be replayed.")

    def _write_spooled(self, lines: Sequence[str]) -> None:
        for start in range(0, len(lines), LARGEST_GROUP):
            self._commit([self._steps.load(line) for line in lines[start : start + LARGEST_GROUP]])


def _expire(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(JournalUnavailable("The database did not commit in time."))


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def _worth_another_try(connection: BaseDatabaseWrapper, error: DatabaseError, attempt: int) -> bool:
    state = _sqlstate(error)
    if state in _RETRIED:
        return True
    if isinstance(error, OperationalError | InterfaceError) and state is None:
        # A connection that died while idle deserves one new one; a server that is away does not deserve the wait.
        return attempt == 0
    return connection.vendor == "sqlite" and isinstance(error, OperationalError)
