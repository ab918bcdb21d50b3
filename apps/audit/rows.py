"""Inserting many rows with one statement.

PostgreSQL reads all rows from one JSON parameter (``json_populate_recordset``), which is cheap for Python; elsewhere
it is a plain executemany.
"""

import functools
from collections.abc import Sequence
from typing import Any

import orjson
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

Row = dict[str, Any]


def insert_rows(connection: BaseDatabaseWrapper, model: type[models.Model], rows: Sequence[Row]) -> None:
    """Insert ``rows``, each with values for columns of ``model`` by their names; what is there stays.

    A column that a row does not name is null.
    """
    columns = _columns(model)
    with connection.cursor() as cursor:
        cursor.executemany(_plain_statement(model), [_prepared(connection, columns, row) for row in rows])


@functools.cache
def insert_statement(model: type[models.Model], parameter: int) -> str:
    """Return PostgreSQL's statement for `encode_rows` of a table as parameter ``$parameter``; what is there stays."""
    table, names = model._meta.db_table, ", ".join(f'"{name}"' for name in columns_of(model))
    return (
        f'INSERT INTO "{table}" ({names}) '  # noqa: S608 (names of our own models)
        f'SELECT {names} FROM json_populate_recordset(NULL::"{table}", ${parameter}::json) ON CONFLICT DO NOTHING'
    )


def encode_rows(value: Any) -> bytes:
    """Write rows as JSON, as both PostgreSQL and the spool read them. Raises `TypeError` for what JSON cannot hold."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def dump_rows(value: Any) -> str:
    """Write rows as `encode_rows` does, as text."""
    return encode_rows(value).decode()


def columns_of(model: type[models.Model]) -> tuple[str, ...]:
    """Return the names of a model's columns."""
    return tuple(name for name, _ in _columns(model))


@functools.cache
def _columns(model: type[models.Model]) -> tuple[tuple[str, "models.Field[Any, Any]"], ...]:
    return tuple((str(field.column), field) for field in model._meta.concrete_fields)


@functools.cache
def _plain_statement(model: type[models.Model]) -> str:
    names = columns_of(model)
    quoted, places = ", ".join(f'"{name}"' for name in names), ", ".join(["%s"] * len(names))
    return f'INSERT INTO "{model._meta.db_table}" ({quoted}) VALUES ({places}) ON CONFLICT DO NOTHING'  # noqa: S608


def _prepared(
    connection: BaseDatabaseWrapper, columns: Sequence[tuple[str, "models.Field[Any, Any]"]], row: Row
) -> list[Any]:
    # A row that an older version spooled lacks the columns that came later, as it does on PostgreSQL.
    return [_prepared_value(connection, field, row.get(name)) for name, field in columns]


def _prepared_value(connection: BaseDatabaseWrapper, field: "models.Field[Any, Any]", value: Any) -> Any:
    if isinstance(field, models.JSONField):
        return None if value is None else dump_rows(value)
    return field.get_db_prep_save(field.to_python(value), connection)
