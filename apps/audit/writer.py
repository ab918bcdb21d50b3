"""The journal's thread: takes what waits, commits it in one transaction, releases the waiters, and never dies of it.

Who is at fault when a group fails decides what happens to it. A member (its data do not fit): the group is halved
until that member stands alone; it is set apart and the others are written. Somebody's lock: the members that need it
wait aside, the others go on. The database: intents are refused, durable members are spooled, and replayed later,
between the groups of new work.
"""

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, DataError, Error, IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit import fence, wires
from apps.audit.prepared import OUTDATED
from apps.audit.spool import Spool

if TYPE_CHECKING:
    from apps.audit.journal import Run, Steps

logger = logging.getLogger(__name__)

_SPREAD = random.SystemRandom()
"""Spreads retries, without touching the state of the generator that everybody shares."""

LARGEST_GROUP = 256
LOCK_TIMEOUT_MS = 200
STATEMENT_TIMEOUT_MS = 5_000
GROUP_SECONDS = 6.0
"""After this long a group's connection is cut: the server's own timeouts did not fire, so the server hangs."""
TRIES = 4
SPOOL_POLL_SECONDS = 1.0
ASIDE_POLL_SECONDS = 0.01
CONTENTION_SECONDS = 2.0
"""How long after the last locked row no group waits for locks."""
MOST_HELD = 10_000
_RETRIED = frozenset({"40001", "40P01"}) | OUTDATED  # serialization failure, deadlock
_LOCK_NOT_AVAILABLE = "55P03"
_FAULTS_OF_A_MEMBER = ("22", "23", "54")  # data, integrity, program limits

SPOOLED = object()
"""The result of a durable member that waits for the database."""

LATER = object()
"""The result of a member that was not written, for it needs a row that somebody has locked."""


class JournalUnavailable(Exception):
    """The database did not commit in time; nothing may be called on the strength of this member."""


class CommitUnclear(Exception):
    """The connection was lost during COMMIT: the group is written or not, nobody knows. Holds its results."""

    def __init__(self, results: Sequence[Any]) -> None:
        super().__init__("The connection was lost during COMMIT.")
        self.results = results


@dataclass(slots=True, eq=False)
class Waiter:
    """A member, and who wants to know; ``spooled`` once it is safe on disk."""

    member: Any
    loop: asyncio.AbstractEventLoop | None = None
    future: "asyncio.Future[Any] | None" = None
    spooled: bool = False
    since: float = field(default_factory=time.monotonic)

    def pointless(self) -> bool:
        """Whether nothing is to be written: nobody waits for this intent any more, or this end is on disk."""
        if self.member.durable:
            return self.spooled
        return self.future is not None and self.future.done()


class Writer:
    """One thread with one connection."""

    def __init__(self, steps: "Steps", spool: Spool, using: str) -> None:
        self.stopped = False
        self._steps = steps
        self._spool = spool
        self._using = using
        self._queue: deque[Waiter] = deque()
        self._aside: list[Waiter] = []
        self._held: deque[Waiter] = deque()
        self._group: Sequence[Waiter] = ()
        self._releases: deque[None] = deque()
        self._wake = threading.Event()
        self._stop_by: float | None = None
        self._hurry = False
        self._busy_since: float | None = None
        self._no_patience_until = 0.0
        self._next_replay = self._next_aside = 0.0
        self._connection: BaseDatabaseWrapper | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="journal-watch", daemon=True).start()

    def enqueue(self, waiter: Waiter) -> bool:
        """Have a member written; False if the writer has ended."""
        self._queue.append(waiter)
        if not self._wake.is_set():
            self._wake.set()
        if self.stopped:
            try:
                self._queue.remove(waiter)
            except ValueError:
                return True  # it was taken at the last moment
            return False
        return True

    def backlog(self) -> int:
        """Return how many members wait."""
        return len(self._queue) + len(self._aside)

    def queue_age(self) -> float:
        """Return the seconds that the oldest member has waited; who waits aside for a locked row does not count."""
        try:
            return time.monotonic() - self._queue[0].since if self._queue else 0.0
        except IndexError:  # the writer has just taken the last one
            return 0.0

    def held(self) -> int:
        """Return how many durable members are in memory alone, since neither database nor disk took them."""
        return len(self._held)

    def stop(self, timeout: float) -> None:
        """Write what waits and end. What the database does not take within ``timeout`` seconds goes to the spool."""
        self._stop_by = time.monotonic() + timeout
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._hurry = True
            self._wake.set()
            wires.cut(self._connection)
            self._thread.join(1.0)
        self.stopped = True
        # Where the thread still hangs, its group is spooled as well: what is written twice counts once.
        hanging = self._group if self._thread.is_alive() else ()
        rest = [*hanging, *self._aside, *self._queue, *self._held]
        self._queue.clear()
        self._held.clear()
        if rest:
            self._fail(rest, JournalUnavailable("The journal ended."))
        if self._held:
            logger.critical("%d final records are lost: neither database nor disk took them.", len(self._held))

    # --- the thread

    def _work(self) -> None:
        fence.work_across_organizations()
        try:
            while not self._finished():
                self._wake.wait(ASIDE_POLL_SECONDS if self._aside or self._stop_by else SPOOL_POLL_SECONDS)
                self._wake.clear()
                try:
                    self._turn()
                except Exception:
                    logger.exception("The journal's writer failed, and goes on.")
        finally:
            self._ended.set()
            connections[self._using].close()

    def _finished(self) -> bool:
        """Whether the writer is to stop and nothing is left. A release that is on its way may bring an undo."""
        if self._stop_by is None or self._queue or self._aside:
            return False
        return not self._releases or time.monotonic() > self._stop_by

    def _turn(self) -> None:
        self._write_what_waits()
        if time.monotonic() >= self._next_replay and not self._hurry:
            self._next_replay = time.monotonic() + SPOOL_POLL_SECONDS
            self._replay()

    def _write_what_waits(self) -> None:
        while self._queue:
            self._write(self._take())
            self._write_aside()
        self._write_aside()

    def _take(self) -> list[Waiter]:
        group: list[Waiter] = []
        while self._queue and len(group) < LARGEST_GROUP:
            waiter = self._queue.popleft()
            if not waiter.pointless():
                group.append(waiter)
        return group

    def _write_aside(self) -> None:
        """Try again what needs locked rows, without waiting for them."""
        if not self._aside or time.monotonic() < self._next_aside:
            return
        self._next_aside = time.monotonic() + ASIDE_POLL_SECONDS
        waiters, self._aside = [w for w in self._aside if not w.pointless()], []
        for start in range(0, len(waiters), LARGEST_GROUP):
            self._write(waiters[start : start + LARGEST_GROUP])

    def _write(self, group: Sequence[Waiter]) -> None:
        if not group:
            return
        if self._hurry:
            self._fail(group, JournalUnavailable("The journal ends."))
            return
        self._group = group
        patient = time.monotonic() >= self._no_patience_until
        try:
            results = self._commit(self._steps.run if patient else self._steps.run_free, [w.member for w in group])
        except CommitUnclear as unclear:
            self._untangle(group, unclear.results)
        except Exception as error:  # noqa: BLE001 (whatever one member breaks must not fail its neighbours)
            self._recover(group, error, patient)
        else:
            self._settle(group, results)
        self._group = ()

    def _recover(self, group: Sequence[Waiter], error: Exception, patient: bool) -> None:
        if _sqlstate(error) == _LOCK_NOT_AVAILABLE and patient:
            self._no_patience_until = time.monotonic() + CONTENTION_SECONDS
            self._write(group)
        elif not (_is_fault_of_a_member(error) or _sqlstate(error) == _LOCK_NOT_AVAILABLE):
            self._fail(group, error)
        elif len(group) > 1:
            middle = len(group) // 2
            self._write(group[:middle])
            self._write(group[middle:])
        elif _is_fault_of_a_member(error):
            self._reject(group[0], error)
        else:
            self._fail(group, error)

    def _settle(self, group: Sequence[Waiter], results: Sequence[Any]) -> None:
        if LATER in results:
            self._no_patience_until = time.monotonic() + CONTENTION_SECONDS
            pairs = list(zip(group, results, strict=True))
            self._aside += [waiter for waiter, result in pairs if result is LATER]
            pairs = [(waiter, result) for waiter, result in pairs if result is not LATER]
            group, results = [waiter for waiter, _ in pairs], [result for _, result in pairs]
        self._release(group, results)

    def _untangle(self, group: Sequence[Waiter], results: Sequence[Any]) -> None:
        """Refuse intents, and take back those that were written; the rest is written again from the spool."""
        error = JournalUnavailable("It is not known whether the database committed.")
        self._fail(group, error)
        for waiter, result in zip(group, results, strict=True):
            if result is not LATER:
                self._take_back(waiter, result)

    def _commit(self, run: "Run", members: Sequence[Any]) -> Sequence[Any]:
        connection = self._connection = connections[self._using]
        self._busy_since = time.monotonic()
        try:
            for attempt in range(TRIES):
                try:
                    return self._commit_once(connection, run, members)
                except Error as error:
                    if connection.vendor == "postgresql" and _lost_connection(error):
                        connection.close()
                    if attempt == TRIES - 1 or not self._worth_another_try(connection, error, attempt):
                        raise
                    time.sleep(_SPREAD.uniform(0.001, 0.01) * (attempt + 1))
            raise AssertionError
        finally:
            self._busy_since = None

    def _commit_once(self, connection: BaseDatabaseWrapper, run: "Run", members: Sequence[Any]) -> Sequence[Any]:
        results: Sequence[Any] | None = None
        try:
            self._ready(connection)
            with transaction.atomic(using=self._using):
                results = run(connection, members)
        except Error as error:
            if results is not None and connection.vendor == "postgresql" and _lost_connection(error):
                connection.close()
                raise CommitUnclear(results) from error
            raise
        return results

    def _ready(self, connection: BaseDatabaseWrapper) -> None:
        if connection.connection is not None:
            return
        connection.ensure_connection()
        if connection.vendor == "postgresql":
            try:
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}"
                    )
            except Error:
                connection.close()  # without its timeouts it must not be used
                raise

    def _worth_another_try(self, connection: BaseDatabaseWrapper, error: Error, attempt: int) -> bool:
        if self._hurry:
            return False
        if _sqlstate(error) in _RETRIED:
            return True
        if connection.vendor == "postgresql" and _lost_connection(error):
            # A connection that died while idle deserves one new one; a server that is away does not deserve the wait.
            return attempt == 0
        return connection.vendor == "sqlite" and isinstance(error, DatabaseError) and not _is_fault_of_a_member(error)

    def _release(self, group: Sequence[Waiter], results: Sequence[Any]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any]]] = {}
        for waiter, result in zip(group, results, strict=True):
            if waiter.loop is not None:
                by_loop.setdefault(waiter.loop, []).append((waiter, result))
        for loop, pairs in by_loop.items():
            self._releases.append(None)
            try:
                loop.call_soon_threadsafe(self._resolve, pairs)
            except RuntimeError:  # that loop has closed: its waiters left
                self._releases.pop()
                for waiter, result in pairs:
                    self._take_back(waiter, result)

    def _resolve(self, pairs: Sequence[tuple[Waiter, Any]]) -> None:
        """Tell the waiters, all in one turn of their loop: what they do next travels together, to Redis and back here.

        A few in each turn would let the loop look after its connections in between, and cost a sixth more.
        """
        for waiter, result in pairs:
            assert waiter.future is not None
            if waiter.future.done():
                self._take_back(waiter, result)
            elif isinstance(result, Exception):
                waiter.future.set_exception(result)
            else:
                waiter.future.set_result(result)
        self._releases.pop()

    def _take_back(self, waiter: Waiter, result: Any) -> None:
        reverse = self._steps.undo(waiter.member, result)
        if reverse is not None and not self.enqueue(Waiter(reverse)):
            self._keep([Waiter(reverse)])

    def _fail(self, group: Sequence[Waiter], error: Exception) -> None:
        """Spool what is durable, or hold it in memory if there is no disk either; refuse the rest."""
        logger.error("The journal could not commit a group of %d: %s.", len(group), type(error).__name__)
        self._keep([waiter for waiter in group if waiter.member.durable])
        unavailable = JournalUnavailable("The database did not commit.")
        self._release(group, [SPOOLED if waiter.member.durable else unavailable for waiter in group])

    def _keep(self, durable: Sequence[Waiter]) -> None:
        waiters = [waiter for waiter in durable if not waiter.spooled]
        if not waiters:
            return
        try:
            self._spool.append([self._steps.dump(waiter.member) for waiter in waiters])
        except Exception:
            logger.critical(
                "The spool did not take %d final records: they wait in memory.", len(waiters), exc_info=True
            )
            self._hold(waiters)
        else:
            for waiter in waiters:
                waiter.spooled = True

    def _hold(self, waiters: Sequence[Waiter]) -> None:
        self._held += [Waiter(waiter.member) for waiter in waiters]
        excess = len(self._held) - MOST_HELD
        for _ in range(excess):
            self._held.popleft()
        if excess > 0:
            logger.critical("%d final records were dropped; calls among them will be swept as interrupted.", excess)

    def _reject(self, waiter: Waiter, error: Exception) -> None:
        logger.error("The journal rejected a member.", exc_info=error)
        if waiter.member.durable:
            try:
                self._spool.reject(self._steps.dump(waiter.member))
            except Exception:
                logger.critical("A rejected final record could not be kept.", exc_info=True)
        self._release([waiter], [SPOOLED if waiter.member.durable else JournalUnavailable("The database refused.")])

    # --- what waits for the database's return

    def _replay(self) -> None:
        try:
            self._write_held()
            for page in self._spool.pages():
                for start in range(0, len(page.lines), LARGEST_GROUP):
                    self._replay_lines(page.lines[start : start + LARGEST_GROUP])
                    self._write_what_waits()  # new work does not wait for old
                page.remove()
        except (Error, CommitUnclear, OSError):
            return  # still away: the lines stay where they are

    def _write_held(self) -> None:
        while waiters := list(self._held)[:LARGEST_GROUP]:
            before = len(self._held)
            self._write(waiters)  # what fails again is held again, behind these
            again = len(self._held) > before
            for _ in waiters:
                self._held.popleft()
            if again:
                return

    def _replay_lines(self, lines: Sequence[str]) -> None:
        members = []
        for line in lines:
            try:
                members.append((line, self._steps.load(line)))
            except Exception:
                logger.exception("A spooled line cannot be read.")
                self._spool.reject(line)
        if members:
            self._replay_members(members)

    def _replay_members(self, members: Sequence[tuple[str, Any]]) -> None:
        try:
            results = self._commit(self._steps.run_free, [member for _, member in members])
        except Exception as error:
            if not _is_fault_of_a_member(error) or isinstance(error, CommitUnclear):
                raise
            if len(members) == 1:
                logger.exception("A spooled final record cannot be written.")
                self._spool.reject(members[0][0])
                return
            middle = len(members) // 2
            self._replay_members(members[:middle])
            self._replay_members(members[middle:])
            return
        later = [line for (line, _), result in zip(members, results, strict=True) if result is LATER]
        if later:
            self._spool.append(later)

    def _watch(self) -> None:
        """Cut the connection of a group that takes longer than the server's own timeouts allow."""
        while not self._ended.wait(1.0):
            since = self._busy_since
            if since is not None and time.monotonic() - since > GROUP_SECONDS:
                logger.error("The database has not answered for %d s: its connection is cut.", GROUP_SECONDS)
                wires.cut(self._connection)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def _lost_connection(error: BaseException) -> bool:
    """Whether the connection, not the statement, failed: the server tells no state then, or one of its classes."""
    state = _sqlstate(error)
    if state is None:
        return isinstance(error, Error) and not isinstance(error, DataError | IntegrityError)
    return state.startswith(("08", "57P"))


def _is_fault_of_a_member(error: Exception) -> bool:
    """Whether a member's data are at fault, rather than the database: then the other members can be written."""
    if not isinstance(error, Error):
        return True
    state = _sqlstate(error)
    if state is not None:
        return state.startswith(_FAULTS_OF_A_MEMBER)
    return isinstance(error, DataError | IntegrityError)
