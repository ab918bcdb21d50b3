"""The statements that sum records up, in the two dialects. Everything they say is put together from constants."""

from collections.abc import Iterable
from datetime import date, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from apps.audit.latency import BOUNDS_MS, COLUMNS

SUMS = ("requests", "tokens_input", "tokens_output", "cost_nano_usd")
NAMED = {"organization_id": "organization_name", "application_id": "application_name", "user_id": "user_name"}
"""Dimensions that are ids, with the column of their name."""
DIMENSIONS = (
    "organization_id",
    "application_id",
    "user_id",
    "model",
    "provider",
    "status",
    "error_code",
    "policy_id",
)
NAMES = (*NAMED.values(), "policy_name")
TAG_SUMS = (*SUMS, "blocked", "errors")
ONLY = {"policy_id": "status = 'blocked'", "error_code": "error_code <> ''"}
"""What is grouped by a dimension, where that is not everything."""
READ = (
    "id, timestamp, organization_id, organization_name, application_id, application_name, user_id, user_name, model,"
    " provider, status, error_code, tokens_input, tokens_output, cost_nano_usd, latency_ms, metadata"
)
"""What is read of a record, besides the policy that refused it."""


class Dialect(NamedTuple):
    """How a database says what the other says in another way. ``{r}`` stands for the record's alias."""

    hour: str
    day: str
    day_of_hour: str
    week_of_hour: str
    """The day of the week's Monday."""
    refused_by: str
    """The id of the first policy among the reasons that refused a request; nothing where none did."""
    refused_by_name: str
    tag: str
    """The value of the tag ``{key}``, null without one."""
    uuid: str
    moment: str
    emptied: str


_POSTGRES = Dialect(
    hour="date_trunc('hour', {r}.timestamp, 'UTC')",
    day="({r}.timestamp AT TIME ZONE 'UTC')::date",
    day_of_hour="(hour AT TIME ZONE 'UTC')::date",
    week_of_hour="date_trunc('week', hour AT TIME ZONE 'UTC')::date",
    refused_by="CASE WHEN {r}.status = 'blocked' THEN COALESCE(jsonb_path_query_first({r}.reasons,"
    " '$[*] ? (@.enforced == true)') ->> 'policy_id', '') ELSE '' END",
    refused_by_name="CASE WHEN {r}.status = 'blocked' THEN COALESCE(jsonb_path_query_first({r}.reasons,"
    " '$[*] ? (@.enforced == true)') ->> 'policy', '') ELSE '' END",
    tag="{r}.metadata ->> {key}",
    uuid="uuid",
    moment="timestamptz",
    emptied=" ON COMMIT DELETE ROWS",
)
_SQLITE = Dialect(
    hour="strftime('%%Y-%%m-%%d %%H:00:00', {r}.timestamp)",
    day="substr({r}.timestamp, 1, 10)",
    day_of_hour="substr(hour, 1, 10)",
    week_of_hour="date(substr(hour, 1, 10), 'weekday 0', '-6 days')",
    refused_by="CASE WHEN {r}.status = 'blocked' THEN COALESCE((SELECT json_extract(e.value, '$.policy_id')"
    " FROM json_each({r}.reasons) e WHERE json_extract(e.value, '$.enforced') ORDER BY e.key LIMIT 1), '')"
    " ELSE '' END",
    refused_by_name="CASE WHEN {r}.status = 'blocked' THEN COALESCE((SELECT json_extract(e.value, '$.policy')"
    " FROM json_each({r}.reasons) e WHERE json_extract(e.value, '$.enforced') ORDER BY e.key LIMIT 1), '')"
    " ELSE '' END",
    tag="(SELECT e.value FROM json_each({r}.metadata) e WHERE e.key = {key})",
    uuid="text",
    moment="text",
    emptied="",
)


def dialect() -> Dialect:
    """Return how the database speaks."""
    return _POSTGRES if connection.vendor == "postgresql" else _SQLITE


@cache
def measures(alias: str) -> str:
    """Return the sums over records, with the counts of their latencies."""
    edges = zip((-1, *BOUNDS_MS), (*BOUNDS_MS, 2**31), strict=True)
    within = (f"{alias}.latency_ms > {lower} AND {alias}.latency_ms <= {upper}" for lower, upper in edges)
    counts = (
        f"NULLIF(SUM(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) AS {column}"
        for condition, column in zip(within, COLUMNS, strict=True)
    )
    return ", ".join([_basic(alias), *counts])


def _basic(alias: str) -> str:
    return "COUNT(*) AS requests, " + ", ".join(f"SUM({alias}.{column}) AS {column}" for column in SUMS[1:])


def bound(values: Iterable[Any]) -> list[Any]:
    """Return parameters as the driver takes them."""
    return list(values) if connection.vendor == "postgresql" else [_on_sqlite(value) for value in values]


def _on_sqlite(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return str(value) if isinstance(value, date) else value


def records(condition: str) -> str:
    """Return the rows of the records for which the condition on ``r`` holds, with the policy that refused each."""
    speech = dialect()
    return (
        f"SELECT {', '.join('r.' + column.strip() for column in READ.split(','))},"
        f" {speech.refused_by.format(r='r')} AS policy_id, {speech.refused_by_name.format(r='r')} AS policy_name"
        f" FROM audit_requestrecord r WHERE {condition}"
    )


@cache
def digest(alias: str, columns: tuple[str, ...], last: str) -> str:
    """Return a digest over columns. The last is the one text that a client chooses: it may hold the separator."""
    parts = (f"COALESCE(CAST({alias}.{column} AS text), '')" for column in (*columns, last))
    return f"md5({' || chr(31) || '.join(parts)})" if _has_chr() else f"md5({' || char(31) || '.join(parts)})"


def _has_chr() -> bool:
    return connection.vendor == "postgresql"


# --- Series, hours and days


def make_chunk() -> str:
    """Return the statement that makes this session's table of sums on their way."""
    speech = dialect()
    ids = ("organization_id", "application_id", "user_id")
    columns = ["digest text", f"hour {speech.moment}", *(f"{name} {speech.uuid}" for name in ids)]
    columns += [f"{name} text" for name in (*DIMENSIONS[3:], *NAMES)]
    columns += [f"{name} bigint" for name in (*SUMS, *COLUMNS)]
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS usage_chunk ({', '.join(columns)}){speech.emptied}"


def fill_chunk(source: str) -> str:
    """Return the statement that sums up the records of ``source`` by series and hour."""
    others = tuple(name for name in DIMENSIONS if name != "model")
    hour, key = dialect().hour.format(r="r"), digest("r", others, "model")
    named = ", ".join(f"MAX(r.{name}) AS {name}" for name in NAMES)
    grouped = ", ".join(f"r.{name}" for name in DIMENSIONS)
    columns = ", ".join(("digest", "hour", *DIMENSIONS, *NAMES, *SUMS, *COLUMNS))
    return (
        f"INSERT INTO usage_chunk ({columns}) SELECT {key}, {hour}, {grouped}, {named}, {measures('r')}"
        f" FROM ({source}) r GROUP BY {key}, {hour}, {grouped}"
    )


def series_of_chunk() -> str:
    """Return the statement that makes the series that are new, and keeps the names last seen."""
    columns = ", ".join(("digest", *DIMENSIONS, *NAMES))
    named = ", ".join(f"MAX({name})" for name in NAMES)
    kept = ", ".join(f"{name} = excluded.{name}" for name in NAMES)
    differ = " OR ".join(f"audit_usageseries.{name} <> excluded.{name}" for name in NAMES)
    return (
        f"INSERT INTO audit_usageseries ({columns}) SELECT digest, {', '.join(DIMENSIONS)}, {named} FROM usage_chunk"
        f" WHERE 1 = 1 GROUP BY digest, {', '.join(DIMENSIONS)}"
        f" ON CONFLICT (digest) DO UPDATE SET {kept} WHERE {differ}"
    )


def hours_of_chunk() -> str:
    """Return the statement that adds the chunk to its hours."""
    return _add("audit_usagehour", "hour", "c.hour")


def days_of_chunk() -> str:
    """Return the statement that adds the chunk to its days."""
    return _add("audit_usageday", "day", dialect().day_of_hour)


_SLICE = ", ".join(("organization_id", "days", "day", "dimension", "key", "name", *TAG_SUMS, *COLUMNS))


def slices_of_chunk(dimension: str, days: int) -> str:
    """Return the statement that adds the chunk to its slices by a dimension, of days (1) or of weeks (7)."""
    first, name = {1: dialect().day_of_hour, 7: dialect().week_of_hour}[days], {**NAMED, "policy_id": "policy_name"}
    table, key = "audit_usageslice", f"COALESCE(CAST({dimension} AS text), '')"
    return (
        f"INSERT INTO {table} ({_SLICE})"
        f" SELECT organization_id, {days}, {first}, '{dimension}', {key},"
        f" {f'MAX({name[dimension]})' if dimension in name else chr(39) * 2},"
        f" {', '.join(by_status('NULL'))} FROM usage_chunk WHERE {ONLY.get(dimension, '1 = 1')}"
        f" GROUP BY organization_id, {first}, {dimension}"
        f" ON CONFLICT (organization_id, days, day, dimension, key) DO UPDATE SET name = excluded.name,"
        f" {_added(table)}, blocked = {table}.blocked + excluded.blocked, errors = {table}.errors + excluded.errors"
    )


def slices_of_week() -> str:
    """Return the statement that makes a week's slices of its days'; its parameters: the Monday, three times."""
    sums = [summed(name) for name in TAG_SUMS] + [summed(name, "NULL") for name in COLUMNS]
    end = "CAST(%s AS date) + 7" if connection.vendor == "postgresql" else "date(%s, '+7 days')"
    first = "CAST(%s AS date)" if connection.vendor == "postgresql" else "%s"
    return (
        f"INSERT INTO audit_usageslice ({_SLICE})"
        f" SELECT organization_id, 7, {first}, dimension, key, MAX(name), {', '.join(sums)} FROM audit_usageslice"
        f" WHERE days = 1 AND day >= {first} AND day < {end} GROUP BY organization_id, dimension, key"
    )


def by_status(missing: str) -> list[str]:
    """Return the sums of rows that have a status, those of `TAG_SUMS` and `COLUMNS`; ``missing``: no latencies."""
    sums = [summed(name) for name in SUMS]
    sums.append(summed("CASE WHEN status = 'blocked' THEN requests END"))
    sums.append(summed("CASE WHEN status IN ('error', 'interrupted') THEN requests END"))
    return sums + [summed(f"CASE WHEN status = 'success' THEN {name} END", missing) for name in COLUMNS]


def summed(expression: str, missing: str = "0") -> str:
    """Return a sum as a whole number: PostgreSQL's of whole numbers is a numeric, which is dear to add up again."""
    return f"COALESCE(CAST(SUM({expression}) AS bigint), {missing})"


def _added(table: str) -> str:
    added = [f"{column} = {table}.{column} + excluded.{column}" for column in SUMS]
    added += [
        f"{column} = NULLIF(COALESCE({table}.{column}, 0) + COALESCE(excluded.{column}, 0), 0)" for column in COLUMNS
    ]
    return ", ".join(added)


def _add(table: str, unit: str, expression: str) -> str:
    columns = (*SUMS, *COLUMNS)
    summed = ", ".join(f"SUM(c.{column})" for column in columns)
    once = "organization_id, hour, series_id" if unit == "hour" else "series_id, day"
    return (
        f"INSERT INTO {table} (organization_id, series_id, {unit}, {', '.join(columns)})"
        f" SELECT s.organization_id, s.id, {expression}, {summed} FROM usage_chunk c"
        f" JOIN audit_usageseries s ON s.digest = c.digest WHERE 1 = 1 GROUP BY s.organization_id, s.id, {expression}"
        f" ON CONFLICT ({once}) DO UPDATE SET {_added(table)}"
    )


# --- Tags


def make_tag_chunk() -> str:
    """Return the statement that makes this session's table of tags on their way."""
    speech = dialect()
    ids = ", ".join(f"{name} {speech.uuid}" for name in ("organization_id", "application_id", "user_id"))
    day = "date" if connection.vendor == "postgresql" else "text"
    sums = ", ".join(f"{name} bigint" for name in TAG_SUMS)
    return (
        f"CREATE TEMPORARY TABLE IF NOT EXISTS tag_chunk ({ids}, day {day}, key text, value text, {sums})"
        f"{speech.emptied}"
    )


def tag_measures(alias: str) -> str:
    """Return the sums over records that are kept of tags."""
    return (
        f"{_basic(alias)}, SUM(CASE WHEN {alias}.status = 'blocked' THEN 1 ELSE 0 END) AS blocked,"
        f" SUM(CASE WHEN {alias}.status IN ('error', 'interrupted') THEN 1 ELSE 0 END) AS errors"
    )


def fill_tag_chunk(source: str, condition: str) -> str:
    """Return the statement that sums up the records of ``source`` by the tags ``k`` for which the condition holds."""
    speech = dialect()
    value, day = speech.tag.format(r="r", key="k.key"), speech.day.format(r="r")
    grouped = f"r.organization_id, r.application_id, r.user_id, {day}, k.key, {value}"
    columns = f"organization_id, application_id, user_id, day, key, value, {', '.join(TAG_SUMS)}"
    return (
        f"INSERT INTO tag_chunk ({columns}) SELECT {grouped}, {tag_measures('r')} FROM ({source}) r"
        f" JOIN audit_countedtag k ON k.organization_id = r.organization_id"
        f" WHERE {value} IS NOT NULL AND {condition} GROUP BY {grouped}"
    )


MORE_TAGS = """
SELECT c.organization_id FROM (
    SELECT organization_id, key, value FROM tag_chunk UNION SELECT t.organization_id, t.key, t.value
    FROM audit_tagseries t JOIN (SELECT DISTINCT organization_id, key FROM tag_chunk) k
        ON k.organization_id = t.organization_id AND k.key = t.key
) c WHERE c.value IS NOT NULL GROUP BY c.organization_id, c.key HAVING COUNT(*) > %s LIMIT 1
"""
"""Finds whether there are more values of a tag than are told apart."""

LUMP_TAGS = """
UPDATE tag_chunk SET value = NULL WHERE EXISTS (
    SELECT 1 FROM (
        SELECT n.organization_id, n.key, n.value,
            ROW_NUMBER() OVER (PARTITION BY n.organization_id, n.key ORDER BY n.requests DESC, n.value)
            + COALESCE(k.known, 0) AS place
        FROM (
            SELECT c.organization_id, c.key, c.value, SUM(c.requests) AS requests FROM tag_chunk c
            WHERE NOT EXISTS (SELECT 1 FROM audit_tagseries t
                WHERE t.organization_id = c.organization_id AND t.key = c.key AND t.value = c.value)
            GROUP BY c.organization_id, c.key, c.value
        ) n LEFT JOIN (
            SELECT t.organization_id, t.key, COUNT(DISTINCT t.value) AS known FROM audit_tagseries t
            WHERE EXISTS (SELECT 1 FROM tag_chunk c WHERE c.organization_id = t.organization_id AND c.key = t.key)
            GROUP BY t.organization_id, t.key
        ) k ON k.organization_id = n.organization_id AND k.key = n.key
    ) p
    WHERE p.place > %s AND p.organization_id = tag_chunk.organization_id AND p.key = tag_chunk.key
        AND p.value = tag_chunk.value
)
"""
"""Takes the values together that come after as many as are told apart. One that is told apart has been from its first
request on, so that its sums are those of all its records.
"""


def series_of_tags() -> str:
    """Return the statement that makes the series that are new."""
    columns = "organization_id, application_id, user_id, key, value"
    return (
        f"INSERT INTO audit_tagseries (digest, {columns}) SELECT DISTINCT {_tag_digest()}, {columns} FROM tag_chunk c"
        " WHERE 1 = 1 ON CONFLICT (digest) DO NOTHING"
    )


def days_of_tags() -> str:
    """Return the statement that adds the tags to their days."""
    summed = ", ".join(f"SUM(c.{column})" for column in TAG_SUMS)
    added = ", ".join(f"{column} = audit_tagday.{column} + excluded.{column}" for column in TAG_SUMS)
    return (
        f"INSERT INTO audit_tagday (organization_id, series_id, day, {', '.join(TAG_SUMS)})"
        f" SELECT s.organization_id, s.id, c.day, {summed} FROM tag_chunk c"
        f" JOIN audit_tagseries s ON s.digest = {_tag_digest()} WHERE 1 = 1 GROUP BY s.organization_id, s.id, c.day"
        f" ON CONFLICT (organization_id, day, series_id) DO UPDATE SET {added}"
    )


def _tag_digest() -> str:
    """A key is told from its value by its length, and no value from an empty one."""
    key = "CAST(LENGTH(c.key) AS text) || ':' || c.key || CASE WHEN c.value IS NULL THEN '-' ELSE '=' END"
    ids = " || '|' || ".join(
        f"COALESCE(CAST(c.{name} AS text), '')" for name in ("organization_id", "application_id", "user_id")
    )
    return f"md5({ids} || '|' || {key} || COALESCE(c.value, ''))"
