"""The sums of usage: made from records behind the requests' backs, exact whenever a record is committed.

Records are counted in the order of their ids, whose first part is the time, up to a mark that moves on: everything
with a smaller id that is committed has been counted. Two things make that exact although a record may be committed
long after its id was made. A trigger marks every record that is written more than `operations.LATE_SECONDS` after its
id was made; and the mark never passes an id that a transaction under way could still write without such a mark. What
is marked and was passed by is added by itself.

One transaction counts a chunk: it sees the database as of one moment, adds to the sums, deletes the marks and moves
on. So nothing is counted twice, whenever it ends, and two that try at once do no harm.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.utils import timezone

from apps.audit import rollup_sql
from apps.audit.models import (
    CountedTag,
    LateRecord,
    RequestRecord,
    RollupState,
    TagDay,
    TagSeries,
    UsageDay,
    UsageHour,
    UsageSlice,
)
from apps.audit.operations import LATE_SECONDS
from apps.audit.uuid7 import first_id_at

CHUNK = {"postgresql": 50_000, "sqlite": 2_000}
"""Records that are counted in one transaction; on SQLite, where it keeps other writers waiting, fewer."""
SETTLE = timedelta(seconds=LATE_SECONDS + 30)
"""How far behind now the mark stays: a transaction that has written nothing yet may be 30 s old."""
ID_SLACK = timedelta(days=1)
"""The most that the moment in a record's id may differ from its timestamp."""
MOST_TAG_VALUES = 200
"""Values of a tag that are told apart; the others are counted together."""
NOTHING = UUID(int=0)
_ANOTHERS_TURN = frozenset({"55P03", "40001"})
"""The state is locked, or was changed after our moment."""

Tag = tuple[UUID, str]
"""An organization, and a key of its requests' metadata."""


def roll(tags: Collection[Tag] | None = None) -> int:
    """Count what has been recorded since the last time; return how many records of the log that were.

    ``tags`` are all that are to be counted from now on; ``None`` leaves them as they are. Ends early, without harm,
    when somebody else counts.
    """
    if tags is not None:
        choose_tags(tags)
    until, counted = settled_before(), 0
    while True:
        found, more = _step(until)
        counted += found
        if not more:
            return counted


def settled_before() -> UUID:
    """Return an id below which every record is committed, or will be marked as late when it is."""
    if connection.vendor != "postgresql":
        return first_id_at(timezone.now() - SETTLE)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT now(), MIN(xact_start) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
        )
        now, oldest = cursor.fetchone()
    settled = now - SETTLE
    return first_id_at(min(settled, oldest - timedelta(seconds=LATE_SECONDS)) if oldest else settled)


def choose_tags(tags: Collection[Tag]) -> None:
    """Count these tags and no others. The past of a new one is counted by and by."""
    wanted = set(tags)
    stored = {(tag.organization_id, tag.key): tag for tag in CountedTag.objects.all()}
    gone = [tag for chosen, tag in stored.items() if chosen not in wanted]
    if wanted == stored.keys():
        return
    with _turn() as state:
        if state is None:
            return
        CountedTag.objects.bulk_create(
            [
                CountedTag(organization_id=organization, key=key, counted_before=NOTHING)
                for organization, key in sorted(wanted - stored.keys(), key=str)
            ],
            ignore_conflicts=True,
        )
        for tag in gone:
            series = TagSeries.objects.filter(organization_id=tag.organization_id, key=tag.key)
            TagDay.objects.filter(series__in=series).delete()
            series.delete()
            tag.delete()


def rebuild(since: date | None = None) -> Iterator[tuple[date, date]]:
    """Count every day again from its records; give each day that is done, and the last one.

    Goes on where an unfinished rebuild ended, or begins with ``since``, or with the day of the oldest record. Each
    day is exchanged in one transaction, so that the sums are right all the time. Days whose records are gone stay.
    """
    day = since or RollupState.objects.get().rebuilding or _first_day()
    while day is not None:
        with _turn() as state:
            if state is None:
                raise OperationalError("Somebody else counts just now. Try again.")
            last = min(_day_of(state.counted_before), timezone.now().date())
            if day <= last:
                _count_again(day, state.counted_before)
            state.rebuilding = day + timedelta(days=1) if day < last else None
            state.save()
        if day <= last:
            yield day, last
        day = state.rebuilding


def _step(until: UUID) -> tuple[int, bool]:
    """Count one chunk; return how many records, and whether there is more to count."""
    with _turn() as state:
        if state is None:
            return 0, False
        start = state.counted_before
        end = _end_of_chunk(start, until)
        late = LateRecord.objects.filter(id__lt=start)
        passed_by = "r.id IN (SELECT l.id FROM audit_laterecord l WHERE l.id < %s)"
        counted = _count("r.id >= %s AND r.id < %s", [start, end]) if end > start else 0
        _count_tags("r.id >= %s AND r.id < %s", [start, end], "k.counted_before IS NULL", [])
        if late.exists():
            counted += _count(passed_by, [start])
            _count_tags(passed_by, [start], "r.id < COALESCE(k.counted_before, %s)", [start])
        LateRecord.objects.all().delete()
        state.counted_before = end
        state.save()
        filling = _count_past(end)
        return counted, end < until or filling


@contextmanager
def _turn() -> Iterator[RollupState | None]:
    """Give the state, locked, in a transaction that sees one moment; ``None`` while it is somebody else's turn."""
    with transaction.atomic(durable=True):
        yield _locked()


def _locked() -> RollupState | None:
    if connection.vendor != "postgresql":
        return RollupState.objects.get()  # a writing transaction on SQLite has the whole database to itself
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return RollupState.objects.select_for_update(nowait=True).get()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) not in _ANOTHERS_TURN:
            raise
        transaction.set_rollback(True)
        return None


def _end_of_chunk(start: UUID, until: UUID) -> UUID:
    following = RequestRecord.objects.filter(id__gte=start, id__lt=until).order_by("id").values_list("id", flat=True)
    chunk = CHUNK[connection.vendor]
    return next(iter(following[chunk : chunk + 1]), max(start, until))


def _count(condition: str, parameters: list[Any]) -> int:
    """Add the records to the sums; return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(rollup_sql.make_chunk(), [])
        cursor.execute("DELETE FROM usage_chunk", [])
        cursor.execute(rollup_sql.fill_chunk(rollup_sql.records(condition)), rollup_sql.bound(parameters))
        cursor.execute("SELECT COALESCE(SUM(requests), 0) FROM usage_chunk", [])
        counted = int(cursor.fetchone()[0])
        if counted:
            _tell_planner(cursor, "usage_chunk")
            cursor.execute(rollup_sql.series_of_chunk(), [])
            cursor.execute(rollup_sql.hours_of_chunk(), [])
            cursor.execute(rollup_sql.days_of_chunk(), [])
            for dimension, days in product(rollup_sql.DIMENSIONS, (1, 7)):
                cursor.execute(rollup_sql.slices_of_chunk(dimension, days), [])
    return counted


def _count_tags(condition: str, parameters: list[Any], of_tags: str, more: list[Any]) -> None:
    """Add the records to the sums of the tags for which ``of_tags`` holds."""
    if not CountedTag.objects.exists():
        return
    with connection.cursor() as cursor:
        cursor.execute(rollup_sql.make_tag_chunk(), [])
        cursor.execute("DELETE FROM tag_chunk", [])
        source = rollup_sql.records(condition)
        cursor.execute(rollup_sql.fill_tag_chunk(source, of_tags), rollup_sql.bound([*parameters, *more]))
        _tell_planner(cursor, "tag_chunk")
        cursor.execute(rollup_sql.MORE_TAGS, [MOST_TAG_VALUES])
        if cursor.fetchone() is not None:
            cursor.execute(rollup_sql.LUMP_TAGS, [MOST_TAG_VALUES])
        cursor.execute(rollup_sql.series_of_tags(), [])
        cursor.execute(rollup_sql.days_of_tags(), [])


def _tell_planner(cursor: Any, table: str) -> None:
    """Let PostgreSQL know how much there is in a table that was filled a moment ago."""
    if connection.vendor == "postgresql":
        cursor.execute(f"ANALYZE {table}")


def _count_past(until: UUID) -> bool:
    """Count a chunk of the past of one new tag; return whether there is more of that."""
    tag = CountedTag.objects.filter(counted_before__isnull=False).order_by("id").first()
    if tag is None:
        return False
    start = tag.counted_before
    assert start is not None
    own = RequestRecord.objects.filter(organization_id=tag.organization_id, id__gte=start, id__lt=until)
    chunk = CHUNK[connection.vendor]
    end = next(iter(own.order_by("id").values_list("id", flat=True)[chunk : chunk + 1]), None)
    within = "r.organization_id = %s AND r.id >= %s AND r.id < %s"
    _count_tags(within, [tag.organization_id, start, end or until], "k.id = %s", [tag.pk])
    tag.counted_before = end
    tag.save()
    return end is not None or CountedTag.objects.filter(counted_before__isnull=False).exists()


def _count_again(day: date, before: UUID) -> None:
    """Exchange a day's sums for new ones, of all records below the mark that are committed."""
    start = datetime.combine(day, time.min, UTC)
    end = start + timedelta(days=1)
    UsageHour.objects.filter(hour__gte=start, hour__lt=end).delete()
    UsageDay.objects.filter(day=day).delete()
    UsageSlice.objects.filter(days=1, day=day).delete()
    TagDay.objects.filter(day=day).delete()
    within = "r.id >= %s AND r.id < %s AND r.timestamp >= %s AND r.timestamp < %s"
    bounds: list[Any] = [first_id_at(start - ID_SLACK), min(before, first_id_at(end + ID_SLACK)), start, end]
    _count(within, bounds)
    _add_up_week(day - timedelta(days=day.weekday()))
    _count_tags(within, bounds, "r.id < COALESCE(k.counted_before, %s)", [before])
    counted = RequestRecord.objects.filter(id__gte=bounds[0], id__lt=bounds[1], timestamp__gte=start, timestamp__lt=end)
    LateRecord.objects.filter(id__in=counted.filter(id__in=LateRecord.objects.values("id")).values("id")).delete()


def _add_up_week(monday: date) -> None:
    """Make a week's slices anew, of its days'."""
    UsageSlice.objects.filter(days=7, day=monday).delete()
    with connection.cursor() as cursor:
        cursor.execute(rollup_sql.slices_of_week(), rollup_sql.bound([monday] * 3))


def _first_day() -> date | None:
    oldest = RequestRecord.objects.order_by("id").values_list("timestamp", flat=True).first()
    return oldest.astimezone(UTC).date() if oldest else None


def _day_of(last: UUID) -> date:
    """Return the last day on which a record below an id can have come."""
    moment = datetime.fromtimestamp((last.int >> 80) / 1000, UTC)
    return (moment + ID_SLACK).date()
