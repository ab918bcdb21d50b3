"""How the API reads query parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.audit.values import as_choice, as_moment, as_text, as_usd, as_uuid, without_odd_characters

__all__ = [
    "PAGING",
    "Filter",
    "QueryFilters",
    "as_choice",
    "as_flag",
    "as_moment",
    "as_text",
    "as_uuid",
    "choice",
    "query_values",
    "read_value",
]

PAGING = frozenset({"limit", "cursor"})


T = TypeVar("T")


def as_flag(text: str) -> bool:
    """Read ``true`` or ``false``. Raises `ValueError`."""
    if text not in {"true", "false"}:
        raise ValueError("Must be true or false.")
    return text == "true"


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
            as_usd: {"type": "string", "format": "decimal"},
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
            raise ValidationError({without_odd_characters(name): "There is no such parameter here."})
        if len(given) > 1:
            raise ValidationError({without_odd_characters(name): "Give it once."})
        if given[0]:
            values[name] = given[0]
    return values


def read_value(name: str, text: str, read: Callable[[str], T]) -> T:
    """Return what a parameter says. Raises `ValidationError`, naming it."""
    try:
        return read(text)
    except ValueError as error:
        raise ValidationError({without_odd_characters(name): str(error)}) from error


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
