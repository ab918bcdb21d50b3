"""Lists in pages, newest first: ``{"results": [...], "next": absolute url or null}``.

A page continues after a row, not at an offset, so that rows which come or go meanwhile move nothing.
"""

import base64
import binascii
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, Q
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.orgs.rest.filters import as_uuid, read_value

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


class CursorPages(BasePagination):
    """Pages by the view's ``ordered_by`` (a moment; rows of one moment by id), or by id where it is ``None``."""

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        """Return one page. Raises `ValidationError` for a bad ``limit`` or ``cursor``."""
        moment: str | None = getattr(view, "ordered_by", None)
        limit = read_limit(request)
        if cursor := request.query_params.get("cursor"):
            queryset = queryset.filter(read_value("cursor", cursor, lambda text: _after(text, moment)))
        order = (f"-{moment}", "-pk") if moment else ("-pk",)
        rows = list(queryset.order_by(*order)[: limit + 1])
        self.next = _after_row(request, rows[limit - 1], moment) if len(rows) > limit else None
        return rows[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        """Wrap the page."""
        return Response({"results": data, "next": self.next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe a page for OpenAPI."""
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {"type": "string", "format": "uri", "nullable": True, "description": "The next page."},
            },
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameters for OpenAPI."""
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        return [
            {"name": "limit", "in": "query", "required": False, "schema": limit},
            {
                "name": "cursor",
                "in": "query",
                "required": False,
                "description": "As in the previous page's next.",
                "schema": {"type": "string"},
            },
        ]


def read_limit(request: Request) -> int:
    """Return how many rows a page shall have. Raises `ValidationError`."""
    return read_value("limit", request.query_params.get("limit") or str(DEFAULT_LIMIT), _as_limit)


def read_place(request: Request) -> UUID | None:
    """Return the id below which a page by ids begins; ``None``: the first page. Raises `ValidationError`."""
    cursor = request.query_params.get("cursor")
    return read_value("cursor", cursor, lambda text: _place_of(text, None)[1]) if cursor else None


def next_url(request: Request, place: str) -> str:
    """Return the address of the page that begins below a place, with everything else that was asked for."""
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    given = [(name, value) for name, value in request.query_params.items() if name != "cursor"]
    return request.build_absolute_uri(f"{request.path}?{urlencode([*given, ('cursor', cursor)])}")


def _as_limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT or len(text) > 9:
        raise ValueError("Must be a whole number from 1 to " + str(MAX_LIMIT) + ".")
    return int(text)


def _after_row(request: Request, last: Model, moment: str | None) -> str:
    return next_url(request, f"{getattr(last, moment).isoformat()}|{last.pk}" if moment else str(last.pk))


def _after(cursor: str, moment: str | None) -> Q:
    when, last = _place_of(cursor, moment)
    if moment is None or when is None:
        return Q(pk__lt=last)
    return Q(**{f"{moment}__lt": when}) | Q(**{moment: when}, pk__lt=last)


def _place_of(cursor: str, moment: str | None) -> tuple[datetime | None, UUID]:
    try:
        return _place(cursor, moment)
    except (ValueError, binascii.Error):
        raise ValueError("Must be as a page's next gave it.") from None


def _place(cursor: str, moment: str | None) -> tuple[datetime | None, UUID]:
    text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    when, _, last = text.rpartition("|")
    parsed = datetime.fromisoformat(when) if when else None
    if (parsed is None) is not (moment is None) or (parsed is not None and parsed.tzinfo is None):
        raise ValueError
    return parsed, as_uuid(last)
