"""A request record with its texts as one flat entry: what the API, an export and an evidence pack show of it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import F, Func, IntegerField, Value
from django.db.models.functions import Coalesce, Length

from apps.audit.models import RequestRecord, RequestText
from apps.audit.money import usd_from_nano

MOST_TEXT_BYTES = 8 * 1024 * 1024
"""Texts that are held at once."""

FIELDS: tuple[tuple[str, str], ...] = (
    ("id", "id"),
    ("request_id", "id"),
    ("timestamp", "timestamp"),
    ("organization", "organization_id"),
    ("organization_name", "organization_name"),
    ("application", "application_id"),
    ("application_name", "application_name"),
    ("user", "user_id"),
    ("user_name", "user_name"),
    ("api_key", "api_key_id"),
    ("api_key_prefix", "api_key_prefix"),
    ("end_user", "end_user"),
    ("endpoint", "endpoint"),
    ("model", "model"),
    ("provider", "provider"),
    ("upstream_model", "upstream_model"),
    ("streamed", "streamed"),
    ("status", "status"),
    ("http_status", "http_status"),
    ("error_code", "error_code"),
    ("error_message", "error_message"),
    ("prompt_redacted", ""),
    ("response_redacted", ""),
    ("tokens_input", "tokens_input"),
    ("tokens_output", "tokens_output"),
    ("tokens_cached", "tokens_cached"),
    ("usage_source", "usage_source"),
    ("cost_usd", "cost_nano_usd"),
    ("overrun_usd", "overrun_nano_usd"),
    ("latency_ms", "latency_ms"),
    ("first_byte_ms", "first_byte_ms"),
    ("metadata", "metadata"),
    ("reasons", "reasons"),
    ("policies", "policies"),
    ("findings", "findings"),
    ("limits", "limits"),
    ("attempts", "attempts"),
    ("degraded", "degraded"),
)
"""The fields of an entry in their order, each with the column it is read from; the texts are read apart."""

Entry = dict[str, Any]


def entry(record: RequestRecord, text: RequestText | None) -> Entry:
    """Return a record's entry as JSON values. Texts are redacted, ``None`` once erased; money is dollars as text."""
    said = {name: _plain(name, getattr(record, column)) for name, column in FIELDS if column}
    said["prompt_redacted"] = text.prompt_redacted if text else None
    said["response_redacted"] = text.response_redacted if text else None
    return {name: said[name] for name, _ in FIELDS}


def entries(records: Sequence[RequestRecord]) -> Iterator[list[Entry]]:
    """Give the entries of records in their order, in groups whose texts are few enough to be held at once."""
    for group in _groups(records):
        texts = RequestText.objects.in_bulk([record.pk for record in group])
        yield [entry(record, texts.get(record.pk)) for record in group]


def _groups(records: Sequence[RequestRecord]) -> Iterator[list[RequestRecord]]:
    sizes = dict(
        RequestText.objects.filter(pk__in=[record.pk for record in records]).values_list(
            "pk", _size("prompt_redacted") + _size("response_redacted")
        )
    )
    group: list[RequestRecord] = []
    held = 0
    for record in records:
        size = sizes.get(record.pk, 0)
        if group and held + size > MOST_TEXT_BYTES:
            yield group
            group, held = [], 0
        group.append(record)
        held += size
    if group:
        yield group


def _size(column: str) -> Any:
    """Return a text's size in bytes, which PostgreSQL knows without reading it; elsewhere its characters."""
    if connection.vendor == "postgresql":
        return Func(F(column), function="octet_length", output_field=IntegerField())
    return Coalesce(Length(column), Value(0))


def _plain(name: str, value: Any) -> Any:
    if name.endswith("_usd"):
        return usd_from_nano(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if value is None or isinstance(value, str | int | bool | list | dict | float) else str(value)
