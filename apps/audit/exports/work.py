"""Doing what was ordered: one export at a time, in bounded memory, ready to stop at any moment."""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import IO
from uuid import UUID

from django.db import Error

from apps.audit.entries import entries
from apps.audit.exports import files, orders
from apps.audit.exports.formats import writer
from apps.audit.exports.orders import Stopped
from apps.audit.finding import TooSlow, find_all, oldest_id
from apps.audit.models import Export
from apps.audit.search import SearchRefused

logger = logging.getLogger(__name__)

AT_ONCE = 1_000
"""Records that are held at once, without their texts."""
SAY_SECONDS = 0.5
"""How often a worker says that it is alive, and hears that it shall stop."""
SMALL_RECORDS, SMALL_BYTES, SMALL_SECONDS = 10_000, 16 * 1024 * 1024, 3.0
"""What is written at once, while whoever asked for it waits."""


class GivenBack(Exception):
    """This worker has no time for the export: there is more than it may write, or it has to end."""


class Run:
    """One attempt at an export: counts, says how far it is, and stops when it shall."""

    def __init__(self, export: Export, rest: float = 0.0, must_end: Callable[[], bool] = lambda: False) -> None:
        self.export = export
        self._must_end = must_end
        self.records = 0
        self.out: IO[bytes] | None = None
        self._rest = rest
        self._said_at = self._went_on_at = time.monotonic()
        self._span: tuple[int, int] | None = None

    def went_on(self, records: int, place: UUID | None) -> None:
        """Note that so many more records are written, down to an id. Raises `Stopped` and `GivenBack`."""
        self.records += records
        if self._must_end():
            raise GivenBack
        now = time.monotonic()
        if now - self._said_at >= SAY_SECONDS:
            orders.say(self.export, self.records, self._progress(place))
            self._said_at = now
        if self._rest:
            # In a server's process requests go first: rest as long as the work took, or a part of it.
            time.sleep(min((now - self._went_on_at) * self._rest, 1.0))
        self._went_on_at = time.monotonic()

    def _progress(self, place: UUID | None) -> int:
        if self._span is None:
            search, reach = orders.search_of(self.export), orders.reach_of(self.export)
            oldest = oldest_id(reach, search)
            newest = int(search.values["until"].timestamp() * 1000) if "until" in search.values else _ms(self.export.pk)
            self._span = (_ms(oldest) if oldest else newest, newest)
        first, last = self._span
        return 0 if place is None or last <= first else max(0, (last - _ms(place)) * 1000 // (last - first))


class SmallRun(Run):
    """An attempt that gives up beyond what is written while somebody waits."""

    def __init__(self, export: Export) -> None:
        super().__init__(export)
        self._began_at = time.monotonic()

    def went_on(self, records: int, place: UUID | None) -> None:
        """Note progress. Raises `GivenBack`."""
        super().went_on(records, place)
        is_long = time.monotonic() - self._began_at > SMALL_SECONDS
        size = self.out.tell() if self.out else 0
        if is_long or self.records > SMALL_RECORDS or size > SMALL_BYTES:
            raise GivenBack


def _ms(some_id: UUID) -> int:
    return some_id.int >> 80


Producer = Callable[[Run, IO[bytes]], None]
Producers = Mapping[str, Producer]


def write_records(run: Run, out: IO[bytes]) -> None:
    """Write the records that an export asks for, the newest first, in its format."""
    made = writer(run.export.format, out)
    for records, place in find_all(orders.search_of(run.export), orders.reach_of(run.export), AT_ONCE):
        for group in entries(records):
            made.write(group)
            run.went_on(len(group), UUID(group[-1]["id"]))
        run.went_on(0, place)
    made.finish()


def work(
    producers: Producers,
    *,
    waiting_for: timedelta = timedelta(),
    rest: float = 0.0,
    must_end: Callable[[], bool] = lambda: False,
) -> int:
    """Do all that has waited so long; return how many exports were taken.

    ``rest`` is how long to rest after a piece of work, as a part of what it took. Raises `django.db.Error` if the
    database is away.
    """
    taken = 0
    while not must_end() and (export := orders.take(waiting_for)) is not None:
        taken += 1
        _attempt(Run(export, rest, must_end), producers)
    return taken


def tidy() -> int:
    """Remove the files whose time is over, and what dead workers left; return how many. Raises `django.db.Error`."""
    return orders.expire() + files.remove_what_was_left_behind()


def try_at_once(export: Export, producers: Producers) -> None:
    """Write an export while somebody waits, if it is small; else it waits for a worker. Its row says which."""
    taken = orders.take_this(export)
    if taken is not None:
        _attempt(SmallRun(taken), producers)
    export.refresh_from_db()


def _attempt(run: Run, producers: Producers) -> None:
    export = run.export
    try:
        with files.draft(export) as path:
            with path.open("wb") as out:
                run.out = out
                producers[export.kind](run, out)
            orders.finish(export, run.records, files.put(export, path))
    except Stopped:
        logger.info("Export %s was cancelled or taken over.", export.pk)
    except GivenBack:
        orders.give_back(export)
    except (TooSlow, SearchRefused, OSError, ModuleNotFoundError) as error:
        logger.warning("Export %s failed: %s.", export.pk, type(error).__name__)
        orders.fail(export, _in_words(error))
    except Error:
        raise
    except Exception:
        logger.exception("Export %s failed.", export.pk)
        orders.fail(export, "Something went wrong on the server. Order it again, or tell an operator.")


def _in_words(error: Exception) -> str:
    if isinstance(error, TooSlow):
        return "The database was too slow for this search. Choose a shorter period, or try again later."
    if isinstance(error, SearchRefused):
        return f"The search cannot be understood: {error}"
    if isinstance(error, ModuleNotFoundError):
        return "The worker cannot write this format: pyarrow is not installed there. Choose CSV or JSONL."
    return "The file could not be written: the disk is full or the storage does not answer."
