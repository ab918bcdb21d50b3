"""Usage in sums, over any period: whole days and hours from the rollups, the rest from the records themselves.

The rest is what lies between a moment and the next full hour, and what has been recorded since the rollups were last
brought up to date. All of it is read as of one moment, so that every number is that of the records, exactly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db import connection

from apps.audit import rollup_sql
from apps.audit.latency import COLUMNS, percentile
from apps.audit.models import CountedTag, RollupState, TagSeries
from apps.audit.rollup_sql import DIMENSIONS, NAMED, NAMES, SUMS, TAG_SUMS
from apps.audit.rollups import ID_SLACK, MOST_TAG_VALUES
from apps.audit.snapshot import snapshot
from apps.audit.uuid7 import first_id_at

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EARLIEST, LATEST = datetime(1970, 1, 3, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose usage: of some organizations (``None``: of all), and within them of an application, a user, a model."""

    organizations: frozenset[UUID] | None
    application: UUID | None = None
    user: UUID | None = None
    model: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is of all that the organizations do."""
        return self.application is None and self.user is None and self.model is None


@dataclass(frozen=True, slots=True)
class Period:
    """From a moment on and before another, both aware."""

    since: datetime = EARLIEST
    until: datetime = LATEST


@dataclass(frozen=True)
class Sums:
    """Usage in sums. Money in nano-USD. Latencies, in counts by `latency.COLUMNS`, are those of successful requests."""

    requests: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    cost_nano_usd: int = 0
    blocked: int = 0
    errors: int = 0
    latencies: tuple[int, ...] = (0,) * len(COLUMNS)

    @cached_property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.tokens_input + self.tokens_output

    @cached_property
    def percentiles(self) -> tuple[int | None, int | None, int | None]:
        """The latencies in ms within which 50, 95 and 99 of a hundred successful requests were answered."""
        p50, p95, p99 = (percentile(self.latencies, percent) for percent in (50, 95, 99))
        return p50, p95, p99

    def __add__(self, other: "Sums") -> "Sums":
        own, others = _columns(self), _columns(other)
        plain = {name: own[name] + others[name] for name in own}
        return Sums(**plain, latencies=tuple(a + b for a, b in zip(self.latencies, other.latencies, strict=True)))

    def __sub__(self, other: "Sums") -> "Sums":
        return self + other.negated()

    def negated(self) -> "Sums":
        """Return the sums to be taken away."""
        plain = {name: -value for name, value in _columns(self).items()}
        return Sums(**plain, latencies=tuple(-count for count in self.latencies))


@dataclass(frozen=True, slots=True)
class Group:
    """The usage of one group: its key (an id, a name, a day), its name for people."""

    key: str | None
    name: str
    sums: Sums


def totals(scope: Scope, period: Period) -> Sums:
    """Return the sums over all requests of a scope in a period."""
    return sum(timeline(scope, period, DAY).values(), Sums())


def breakdown(
    scope: Scope, period: Period, groupings: Sequence[str], most: int = 1000
) -> tuple[Sums, dict[str, list[Group]]]:
    """Return the sums of a scope in a period, and those of the ``most`` largest groups of each grouping, largest first.

    A grouping is one of `rollup_sql.DIMENSIONS`. By ``policy_id`` only what was refused is grouped, by ``error_code``
    what has one.
    """
    with snapshot():
        rest, days = _parts(scope, period, None)
        own, parameters = _of_slices(days, ("organization_id", *groupings), scope, _BY_KEY)
        grouped = [own] if days else []
        grouped += [_grouped(name) for name in sorted({"organization_id", *groupings})]
        found = _rows(
            f"WITH d AS MATERIALIZED ({rest.statement}), g AS ({' UNION ALL '.join(grouped)})"
            f" SELECT * FROM (SELECT dimension, key, MAX(name), {_summed()},"
            " ROW_NUMBER() OVER (PARTITION BY dimension ORDER BY SUM(requests) DESC, key) AS place FROM g"
            f" GROUP BY dimension, key) p WHERE place <= {int(most)} OR dimension = 'organization_id'"
            " ORDER BY dimension, place",
            [*rest.parameters, *parameters],
        )
    total, groups = Sums(), {name: list[Group]() for name in groupings}
    for dimension, key, name, *sums, place in found:
        group = Group(_readable(dimension, key), name or "", _sums(sums))
        if dimension == "organization_id":
            total += group.sums
        if dimension in groups and place <= most:
            groups[dimension].append(group)
    return total, groups


def timeline(scope: Scope, period: Period, unit: timedelta) -> dict[datetime, Sums]:
    """Return the sums of each day or hour (UTC), by its start, in which there were requests."""
    with snapshot():
        rest, days = _parts(scope, period, unit)
        own, parameters = _of_slices(days, ("organization_id",), scope, _BY_DAY)
        by_status = ", ".join(f"CAST(SUM({name}) AS bigint) AS {name}" for name in (*SUMS, *COLUMNS))
        few = f"SELECT bucket, status, {by_status} FROM ({rest.statement}) r GROUP BY bucket, status"
        statement = f"SELECT bucket, {_final()} FROM ({few}) d GROUP BY bucket"
        if days:
            statement = f"{own} UNION ALL {statement}"
        found = _rows(statement, [*parameters, *rest.parameters])
    buckets: dict[datetime, Sums] = {}
    for bucket, *sums in found:
        start = _as_moment(bucket)
        buckets[start] = buckets.get(start, Sums()) + _sums(sums)
    return dict(sorted(buckets.items()))


def tags_of(organization: UUID) -> dict[str, bool]:
    """Return the keys of metadata that are counted for an organization, and whether their past has been counted."""
    stored = CountedTag.objects.filter(organization_id=organization).order_by("key")
    return {tag.key: tag.counted_before is None for tag in stored}


def by_tag(scope: Scope, period: Period, key: str, most: int = 1000) -> list[Group]:
    """Return the sums by the values of a tag whose past has been counted; the key ``None``: of all other values.

    The period begins and ends with a day. Their latencies are not counted.
    """
    with snapshot():
        rows = _tag_source(scope, period, key)
        statement = f"SELECT value, {', '.join(f'SUM({name})' for name in TAG_SUMS)} FROM ({rows.statement}) d"
        found = _rows(f"{statement} GROUP BY value", rows.parameters)
        organizations = scope.organizations or frozenset()
        series = TagSeries.objects.filter(organization_id__in=organizations, key=key)
        known = set(series.values_list("value", flat=True).distinct())
    groups = {value: _sums(sums) for value, *sums in found}
    if len(known - {None}) >= MOST_TAG_VALUES:
        for value in groups.keys() - known - {None}:
            groups[None] = groups.get(None, Sums()) + groups.pop(value)
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, -item[1].cost_nano_usd, -item[1].requests))
    return [Group(value, "" if value is None else value, sums) for value, sums in ordered[:most]]


# --- Where the rows come from


@dataclass(frozen=True, slots=True)
class _Rows:
    """A statement and its parameters."""

    statement: str
    parameters: list[Any]


def _parts(scope: Scope, period: Period, bucket: timedelta | None) -> tuple[_Rows, tuple[date, date] | None]:
    """Return rows of dimensions and sums, each request in one of them, by the bucket if one is given; and the whole
    days that are left to the slices.
    """
    a, b = max(period.since, EARLIEST), min(period.until, LATEST)
    first, last = _ceil(a, HOUR), _floor(b, HOUR)
    if first >= last:
        return _of_records(scope, _within(a, b), bucket), None
    day, end = _ceil(a, DAY), _floor(b, DAY)
    days, parts = None, []
    if bucket == HOUR or day >= end:
        parts = [_of_rollups(scope, "hour", first, last, bucket)]
    else:
        parts = [_of_rollups(scope, "hour", x, y, bucket) for x, y in ((first, day), (end, last)) if x < y]
        if scope.is_whole:
            days = (day.date(), end.date())
        else:
            parts.append(_of_rollups(scope, "day", day, end, bucket))
    parts += [_of_records(scope, _within(x, y), bucket) for x, y in ((a, first), (last, b)) if x < y]
    parts += [_of_records(scope, condition, bucket) for condition in _uncounted(first, last)]
    return _union(parts), days


@dataclass(frozen=True, slots=True)
class _Cut:
    """What slices are grouped by, and what is said of a group."""

    taken: str
    by: str
    in_weeks: bool
    """Whether a whole week need not be told by its days."""


_BY_KEY = _Cut("u.dimension, u.key, MAX(u.name) AS name", "u.dimension, u.key", in_weeks=True)
_BY_DAY = _Cut("u.day AS bucket", "u.day", in_weeks=False)


def _of_slices(
    days: tuple[date, date] | None, dimensions: Sequence[str], scope: Scope, cut: _Cut
) -> tuple[str, list[Any]]:
    """Return the groups of whole days."""
    if days is None:
        return "", []
    within = _weeks_and_days(*days) if cut.in_weeks else _Rows("u.days = 1 AND u.day >= %s AND u.day < %s", [*days])
    own, parameters = _of_organizations("u", scope)
    wanted = sorted(set(dimensions))
    sums = ", ".join(f"{rollup_sql.summed(f'u.{name}')} AS {name}" for name in (*TAG_SUMS, *COLUMNS))
    statement = (
        f"SELECT {cut.taken}, {sums} FROM audit_usageslice u WHERE ({within.statement})"
        f" AND u.dimension IN ({', '.join(['%s'] * len(wanted))}){own} GROUP BY {cut.by}"
    )
    return statement, [*within.parameters, *wanted, *parameters]


def _weeks_and_days(first: date, end: date) -> _Rows:
    """Return the condition for the slices of the whole weeks of a period, and of the days that are left."""
    monday = first + timedelta(days=-first.weekday() % 7)
    last = max(monday, end - timedelta(days=end.weekday()))
    if monday >= end:
        return _Rows("u.days = 1 AND u.day >= %s AND u.day < %s", [first, end])
    return _Rows(
        "u.days = 7 AND u.day >= %s AND u.day < %s"
        " OR u.days = 1 AND (u.day >= %s AND u.day < %s OR u.day >= %s AND u.day < %s)",
        [monday, last, first, monday, last, end],
    )


def _union(parts: Iterable[_Rows]) -> _Rows:
    listed = list(parts)
    parameters = [parameter for part in listed for parameter in part.parameters]
    return _Rows(" UNION ALL ".join(part.statement for part in listed), parameters)


def _within(a: datetime, b: datetime) -> _Rows:
    """Return the condition that a record is of a period."""
    condition = "r.timestamp >= %s AND r.timestamp < %s AND r.id >= %s AND r.id < %s"
    return _Rows(condition, [a, b, first_id_at(max(a - ID_SLACK, EARLIEST)), first_id_at(min(b + ID_SLACK, LATEST))])


def _uncounted(a: datetime, b: datetime) -> list[_Rows]:
    """Return the conditions that a record of a period is in no rollup yet."""
    mark = RollupState.objects.values_list("counted_before", flat=True).get()
    within = _within(a, b)
    passed_by = f"{within.statement} AND r.id IN (SELECT l.id FROM audit_laterecord l WHERE l.id < %s)"
    return [
        _Rows(f"{within.statement} AND r.id >= %s", [*within.parameters, mark]),
        _Rows(passed_by, [*within.parameters, mark]),
    ]


def _of_rollups(scope: Scope, unit: str, a: datetime, b: datetime, bucket: timedelta | None) -> _Rows:
    table, start, end = f"audit_usage{unit}", *((a, b) if unit == "hour" else (a.date(), b.date()))
    columns = (*SUMS, *COLUMNS)
    if bucket:  # each of a series' rows has a bucket of its own, so there is nothing to add up yet
        taken, by = ", ".join(f"u.{column}" for column in columns) + f", u.{unit} AS unit_", ""
    else:
        taken, by = (
            ", ".join(f"CAST(SUM(u.{column}) AS bigint) AS {column}" for column in columns),
            " GROUP BY u.series_id",
        )
    own, parameters = _of_organizations("u", scope)
    dimensions = ", ".join(f"s.{name}" for name in (*DIMENSIONS, *NAMES))
    sums = ", ".join(f"v.{column}" for column in (*SUMS, *COLUMNS))
    at = f", {_bucket('v.unit_', unit, bucket)} AS bucket" if bucket else ""
    if not scope.is_whole:
        # By the series, of which there are few: a day's rows are found by them.
        narrowed, more = _narrowed("n", scope)
        among, parameters_again = _of_organizations("n", scope)
        own += f" AND u.series_id IN (SELECT n.id FROM audit_usageseries n WHERE 1 = 1{among}{narrowed})"
        parameters = [*parameters, *parameters_again, *more]
    return _Rows(
        f"SELECT {dimensions}, {sums}{at} FROM (SELECT u.series_id, {taken} FROM {table} u"
        f" WHERE u.{unit} >= %s AND u.{unit} < %s{own}{by}) v"
        f" JOIN audit_usageseries s ON s.id = v.series_id",
        [start, end, *parameters],
    )


def _of_records(scope: Scope, condition: _Rows, bucket: timedelta | None) -> _Rows:
    own, parameters = _of_organizations("r", scope)
    narrowed, more = _narrowed("r", scope)
    inner = rollup_sql.records(f"{condition.statement}{own}{narrowed}")
    at = rollup_sql.dialect()
    expression = {None: "", HOUR: at.hour.format(r="q"), DAY: at.day.format(r="q")}[bucket]
    dimensions = ", ".join(f"q.{name}" for name in DIMENSIONS)
    names = ", ".join(f"MAX(q.{name}) AS {name}" for name in NAMES)
    taken, by = (f", {expression} AS bucket", f", {expression}") if bucket else ("", "")
    return _Rows(
        f"SELECT {dimensions}, {names}, {rollup_sql.measures('q')}{taken} FROM ({inner}) q GROUP BY {dimensions}{by}",
        [*condition.parameters, *parameters, *more],
    )


def _tag_source(scope: Scope, period: Period, key: str) -> _Rows:
    own, parameters = _of_organizations("u", scope)
    narrowed, more = _narrowed("s", scope)
    rolled = _Rows(
        f"SELECT s.value, {', '.join(f'u.{name}' for name in TAG_SUMS)} FROM audit_tagday u"
        f" JOIN audit_tagseries s ON s.id = u.series_id"
        f" WHERE u.day >= %s AND u.day < %s AND s.key = %s{own}{narrowed}",
        [period.since.date(), period.until.date(), key, *parameters, *more],
    )
    return _union([rolled, *(_tag_of_records(scope, one, key) for one in _uncounted(period.since, period.until))])


def _tag_of_records(scope: Scope, condition: _Rows, key: str) -> _Rows:
    own, parameters = _of_organizations("r", scope)
    narrowed, more = _narrowed("r", scope)
    inner = rollup_sql.records(f"{condition.statement}{own}{narrowed}")
    value = rollup_sql.dialect().tag.format(r="q", key="k.key")
    typed = "CAST(%s AS text)"
    return _Rows(
        f"SELECT {value} AS value, {rollup_sql.tag_measures('q')} FROM ({inner}) q CROSS JOIN"
        f" (SELECT {typed} AS key) k WHERE {value} IS NOT NULL GROUP BY {value}",
        [*condition.parameters, *parameters, *more, key],
    )


def _of_organizations(alias: str, scope: Scope) -> tuple[str, list[Any]]:
    if scope.organizations is None:
        return "", []
    if not scope.organizations:
        return " AND 1 = 0", []
    ids = sorted(scope.organizations)
    return f" AND {alias}.organization_id IN ({', '.join(['%s'] * len(ids))})", list(ids)


def _narrowed(alias: str, scope: Scope) -> tuple[str, list[Any]]:
    wanted = {"application_id": scope.application, "user_id": scope.user, "model": scope.model}
    given = {name: value for name, value in wanted.items() if value is not None}
    return "".join(f" AND {alias}.{name} = %s" for name in given), list(given.values())


def _bucket(expression: str, unit: str, bucket: timedelta) -> str:
    """Return an hour's or a day's start as the bucket that it lies in."""
    if unit == "day" or bucket == HOUR:
        return expression
    return rollup_sql.dialect().day_of_hour.replace("hour", expression)


# --- What is made of them


def _final() -> str:
    names = (*TAG_SUMS, *COLUMNS)
    return ", ".join(
        f"{expression} AS {name}" for expression, name in zip(rollup_sql.by_status("0"), names, strict=True)
    )


def _summed() -> str:
    return ", ".join(f"SUM({name}) AS {name}" for name in (*TAG_SUMS, *COLUMNS))


def _grouped(name: str) -> str:
    """Return the groups of what is not in slices."""
    if name not in DIMENSIONS:
        raise ValueError(name)
    named = {**NAMED, "policy_id": "policy_name"}.get(name)
    return (
        f"SELECT '{name}' AS dimension, COALESCE(CAST({name} AS text), '') AS key,"
        f" {f'MAX({named})' if named else chr(39) * 2} AS name, {_final()}"
        f" FROM d WHERE {rollup_sql.ONLY.get(name, '1 = 1')} GROUP BY {name}"
    )


def _rows(statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, rollup_sql.bound(parameters))
        return list(cursor.fetchall())


def _sums(values: Sequence[Any]) -> Sums:
    numbers = [int(value) for value in values]
    plain = len(TAG_SUMS)
    found: dict[str, Any] = dict(zip(TAG_SUMS, numbers, strict=False))
    return Sums(**found, latencies=tuple(numbers[plain:]) or (0,) * len(COLUMNS))


def _columns(sums: Sums) -> Mapping[str, int]:
    return {name: getattr(sums, name) for name in TAG_SUMS}


def _readable(grouping: str, key: Any) -> str | None:
    """Return a key as the API writes it."""
    if grouping not in NAMED:
        return str(key)
    return str(UUID(key)) if key else None


def _as_moment(bucket: Any) -> datetime:
    if isinstance(bucket, datetime):
        return bucket.astimezone(UTC)
    if isinstance(bucket, date):
        return datetime.combine(bucket, time.min, UTC)
    return datetime.fromisoformat(str(bucket)).replace(tzinfo=UTC)


def _floor(moment: datetime, unit: timedelta) -> datetime:
    return moment - (moment - EARLIEST) % unit


def _ceil(moment: datetime, unit: timedelta) -> datetime:
    return _floor(moment + unit - timedelta(microseconds=1), unit)
