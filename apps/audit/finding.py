"""Running a search so that its time and its memory are bounded, whatever is asked for and however much there is.

A search walks from the newest id to the oldest in windows of so many rows, whose edges an index alone finds. Each
window is one short statement. So a page that looks for something rare ends in time, with what was found by then and
the place where it goes on; nothing is counted. Exports take the same walk to its end.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet

from apps.audit import fence
from apps.audit.models import RequestRecord, RequestText
from apps.audit.search import Search, id_bounds, indexed, texts_with

FIRST_WINDOW, LARGEST_WINDOW, SMALLEST_WINDOW = 1_000, 64_000, 50
"""Rows that one statement looks at."""
PAGE_SECONDS = 2.0
"""How long a page looks for more; what it has by then is shown."""
STATEMENT_SECONDS = 10.0
"""How long one statement of an export may take before it looks at fewer rows."""
MOST_RARE = 1_000
_RARE_SECONDS = 1.0
_CANCELLED = "57014"  # of SQLSTATE: a statement's time is up


class OutOfReach(Exception):
    """A search found a record of an organization that it may not look into: a fault of ours, and shown to nobody."""


class TooSlow(Exception):
    """The database could not look at even a few rows in time."""


@dataclass(frozen=True, slots=True)
class Found:
    """Records, the newest first, and the id below which the search goes on; ``None``: that was all."""

    records: list[RequestRecord]
    next: UUID | None

    @property
    def is_cut_short(self) -> bool:
        """Whether the time was up before the page was full or everything was looked at."""
        return self.next is not None and (not self.records or self.records[-1].pk != self.next)


@dataclass(frozen=True, slots=True)
class Reach:
    """The organizations whose records may be found; ``None``: all of them."""

    organizations: frozenset[UUID] | None

    def covers(self, organization_id: UUID) -> bool:
        """Whether records of an organization may be found."""
        return self.organizations is None or organization_id in self.organizations

    def is_one(self, search: Search) -> bool:
        """Whether reach and search together are one organization."""
        return "organization" in search.values or len(self.organizations or ()) == 1

    def within(self, search: Search) -> Q:
        """Return the condition on `organization_id` that reach and search make together."""
        wanted = search.values.get("organization")
        if wanted is not None:
            allowed = self.organizations is None or wanted in self.organizations
            return Q(organization_id=wanted) if allowed else Q(pk__in=[])
        if self.organizations is None:
            return Q()
        if len(self.organizations) == 1:
            return Q(organization_id=next(iter(self.organizations)))
        return Q(organization_id__in=self.organizations)


def find(search: Search, reach: Reach, limit: int, before: UUID | None = None) -> Found:
    """Return at most ``limit`` records with ids below ``before``, after about `PAGE_SECONDS` at the latest.

    Raises `TooSlow` if not even the smallest window could be looked at.

    For words it asks as the worker, whom the database lets use its index of them; who serves pages may not, since
    PostgreSQL tries no condition that might tell of a row before it knows whose that is. The reach is part of every
    statement, and what comes back is held to it once more.
    """
    with fence.working() if search.words else nullcontext():
        found = _find(search, reach, limit, before)
    if not all(reach.covers(record.organization_id) for record in found.records):
        raise OutOfReach
    return found


def _find(search: Search, reach: Reach, limit: int, before: UUID | None) -> Found:
    deadline = time.monotonic() + PAGE_SECONDS
    records: list[RequestRecord] = []
    walk = _Walk(search, reach, before)
    while not walk.is_over and len(records) <= limit:
        left = deadline - time.monotonic()
        if left <= 0:
            return Found(records, walk.place) if walk.has_moved else _give_up()
        records += walk.step(limit + 1 - len(records), left)
    more = len(records) > limit
    return Found(records[:limit], records[limit - 1].pk if more else None)


def find_all(search: Search, reach: Reach, at_once: int) -> Iterator[tuple[Sequence[RequestRecord], UUID | None]]:
    """Give every record, the newest first, in groups of at most ``at_once``, each with the place it has come to.

    A group may be empty: it says that the walk went on. Raises `TooSlow` as `find` does.
    """
    walk = _Walk(search, reach, None)
    while not walk.is_over:
        records = walk.step(at_once, STATEMENT_SECONDS)
        yield records, walk.place


def _give_up() -> Found:
    raise TooSlow


class _Walk:
    """A walk through the ids, downwards: where it is, and how many rows the next window has."""

    def __init__(self, search: Search, reach: Reach, before: UUID | None) -> None:
        self._search, self._reach = search, reach
        self._rows = _records(search, reach)
        bounds = reach.within(search) & id_bounds(search)
        self._edges = RequestRecord.objects.filter(bounds & indexed(search, within_one=reach.is_one(search))).order_by(
            "-pk"
        )
        self._texts = RequestText.objects.filter(bounds & texts_with(search.words)) if search.words else None
        self._window = FIRST_WINDOW
        self._few: list[UUID] | None = None
        self._asked_for_few = False
        self.place = before
        self.is_over = False
        self.has_moved = False

    def step(self, limit: int, seconds: float) -> list[RequestRecord]:
        """Look at the next window; return what it has, at most ``limit``. Time that is up halves the next window."""
        started = time.monotonic()
        try:
            with _settings(statement_timeout=_milliseconds(seconds)):
                return self._look(limit)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != _CANCELLED:
                raise
            if self._window <= SMALLEST_WINDOW:
                raise TooSlow from error
            self._window = max(SMALLEST_WINDOW, self._window // 8)
            return []
        finally:
            if time.monotonic() - started < seconds / 10:
                self._window = min(LARGEST_WINDOW, self._window * 4)

    def _look(self, limit: int) -> list[RequestRecord]:
        few = self._those_with_rare_words()
        if few is not None:
            return self._look_at(few, limit)
        edge = self._edges.filter(_below(self.place)).values_list("pk", flat=True)[self._window : self._window + 1]
        lowest = next(iter(edge), None)
        rows = self._rows.filter(_below(self.place), _from(lowest))
        if self._texts is not None:
            # The window's bounds once more: they are what lets the database look at its texts alone.
            texts = self._texts.filter(_below(self.place), _from(lowest))
            rows = rows.filter(pk__in=texts.values("pk"))
        records = list(rows[:limit])
        self._move_to(records[-1].pk if len(records) == limit else lowest)
        return records

    def _look_at(self, few: list[UUID], limit: int) -> list[RequestRecord]:
        records = list(self._rows.filter(_below(self.place), pk__in=few)[:limit])
        self._move_to(records[-1].pk if len(records) == limit else None)
        return records

    def _move_to(self, place: UUID | None) -> None:
        self.is_over = place is None
        self.place = place or self.place
        self.has_moved = True

    def _those_with_rare_words(self) -> list[UUID] | None:
        """Return the ids of all texts with the words if there are few: the index on words knows those at once."""
        if self._asked_for_few or self._texts is None or connection.vendor != "postgresql":
            return self._few
        self._asked_for_few = True
        texts = self._texts.filter(_below(self.place)).order_by().values_list("pk", flat=True)
        try:
            with _settings(statement_timeout=_milliseconds(_RARE_SECONDS), enable_seqscan="off"):
                found = list(texts[: MOST_RARE + 1])
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != _CANCELLED:
                raise
            return None
        self._few = found if len(found) <= MOST_RARE else None
        return self._few


def _records(search: Search, reach: Reach) -> "QuerySet[RequestRecord]":
    return RequestRecord.objects.filter(reach.within(search), search.narrowed()).order_by("-pk")


def _below(place: UUID | None) -> Q:
    return Q(pk__lt=place) if place is not None else Q()


def _from(place: UUID | None) -> Q:
    return Q(pk__gte=place) if place is not None else Q()


@contextmanager
def _settings(**wanted: str) -> Iterator[None]:
    """Set PostgreSQL's settings for the statements inside. After a timeout inside, a transaction around goes on."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        before = {name: _set(cursor, name, value) for name, value in wanted.items()}
        yield
        for name, value in before.items():
            _set(cursor, name, value)


def _set(cursor: Any, name: str, value: str) -> str:
    cursor.execute("SELECT current_setting(%s), set_config(%s, %s, true)", [name, name, value])
    return str(cursor.fetchone()[0])


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def oldest_id(reach: Reach, search: Search) -> UUID | None:
    """Return the id of the oldest record that an organization has, which an index knows; for a walk's progress."""
    first: Any = RequestRecord.objects.filter(reach.within(search)).order_by("pk").values_list("pk", flat=True)[:1]
    return next(iter(first), None)
