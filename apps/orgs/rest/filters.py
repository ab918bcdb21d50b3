"""How the API reads query parameters."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from uuid import UUID

from django.utils.dateparse import parse_date, parse_datetime
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request
from rest_framework.views import APIView

MAX_TEXT_CHARACTERS = 512
PAGING = frozenset({"limit", "cursor"})
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


T = TypeVar("T")


def as_uuid(text: str) -> UUID:
    """Read an id in its canonical form. Raises `ValueError`."""
    if not _UUID.fullmatch(text):
        raise ValueError("Must be an id (a UUID).")
    return UUID(text)


def as_text(text: str) -> str:
    """Read a name or a label. Raises `ValueError`."""
    if len(text) > MAX_TEXT_CHARACTERS or _NOT_TEXT.search(text):
        raise ValueError("Must be a text of at most " + str(MAX_TEXT_CHARACTERS) + " characters.")
    return text


def as_flag(text: str) -> bool:
    """Read ``true`` or ``false``. Raises `ValueError`."""
    if text not in {"true", "false"}:
        raise ValueError("Must be true or false.")
    return text == "true"


def as_moment(text: str) -> datetime:
    """Read a date and time, or a date (its start), in ISO 8601; UTC if it names no zone. Raises `ValueError`."""
    # A plus sign that was not escaped arrives as a space.
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", text)
    try:
        moment = parse_datetime(text) or _midnight(parse_date(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        raise ValueError("Must be a date or a date and time in ISO 8601, such as 2026-01-31T09:00:00Z.") from None


def _midnight(day: date | None) -> datetime:
    if day is None:
        raise ValueError
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def as_choice(*choices: str) -> Callable[[str], str]:
    """Return a reader of one of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("Must be one of " + ", ".join(choices) + ".")
        return text

    return read


@dataclass(frozen=True, slots=True)
class Filter:
    """A query parameter: how it is read, and the lookup that it narrows a list by."""

    lookup: str
    read: Callable[[str], Any] = as_uuid
    description: str = ""
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return the parameter's OpenAPI schema."""
        formats: dict[Any, dict[str, Any]] = {
            as_uuid: {"type": "string", "format": "uuid"},
            as_moment: {"type": "string", "format": "date-time"},
            as_flag: {"type": "boolean"},
        }
        schema = formats.get(self.read, {"type": "string"})
        return schema | {"enum": list(self.choices)} if self.choices else schema


def choice(lookup: str, *choices: str, description: str = "") -> Filter:
    """Return a filter by one of ``choices``."""
    return Filter(lookup, as_choice(*choices), description, choices)


def query_values(request: Request, names: "frozenset[str] | set[str]", prefix: str = "\x00") -> dict[str, str]:
    """Return the query parameters that say something.

    Raises `ValidationError`, naming the parameter, for one that is neither in ``names`` nor begins with ``prefix``:
    a misspelt filter must not look like a list of everything.
    """
    values = {}
    for name, given in request.query_params.lists():
        if name not in names and not name.startswith(prefix):
            raise ValidationError({_safe(name): "There is no such parameter here."})
        if len(given) > 1:
            raise ValidationError({_safe(name): "Give it once."})
        if given[0]:
            values[name] = given[0]
    return values


def read_value(name: str, text: str, read: Callable[[str], T]) -> T:
    """Return what a parameter says. Raises `ValidationError`, naming it."""
    try:
        return read(text)
    except ValueError as error:
        raise ValidationError({_safe(name): str(error)}) from error


def _safe(name: str) -> str:
    return _NOT_TEXT.sub("?", name)


class QueryFilters(BaseFilterBackend):
    """Narrows a list by the view's ``filters``: a mapping of parameter names to `Filter`."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Apply each filter that the request gives."""
        filters: Mapping[str, Filter] = getattr(view, "filters", {})
        for name, text in query_values(request, PAGING | filters.keys()).items():
            if name in filters:
                queryset = queryset.filter(**{filters[name].lookup: read_value(name, text, filters[name].read)})
        return queryset

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the filters for OpenAPI."""
        filters: Mapping[str, Filter] = getattr(view, "filters", {})
        return [
            {"name": name, "in": "query", "required": False, "description": one.description, "schema": one.schema()}
            for name, one in filters.items()
        ]
