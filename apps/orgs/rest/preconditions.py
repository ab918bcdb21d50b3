"""ETags: what an object was when it was read, and writes that happen only if it still is."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from django.db import models
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from apps.audit.changes import stamp_of
from apps.orgs.rest.errors import Changed

HEADER = "If-Match"
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


def etag_of(row: models.Model, shown: Mapping[str, Any]) -> str:
    """Return a strong ETag: it differs once the stored row or what is ``shown`` of it to the caller does."""
    text = json.dumps([stamp_of(row), shown], sort_keys=True, default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()}"'


def asked_for(request: Request) -> frozenset[str] | None:
    """Return the ETags of which the object must have one; ``None``: any will do, or none was asked for.

    Raises `ValidationError` for a header that is not in the form of RFC 9110, section 13.1.1. A weak ETag is never
    the same as a strong one, so it matches nothing.
    """
    text = request.headers.get(HEADER)
    if text is None or text.strip() == "*":
        return None
    parts = [_TAG.fullmatch(part.strip()) for part in text.split(",")]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise ValidationError({HEADER: "Must be * or ETags as an answer gave them, in quotation marks."})
    return frozenset(f'"{part[2]}"' for part in found if not part[1])


def check_unchanged(wanted: frozenset[str] | None, row: models.Model, shown: Mapping[str, Any]) -> None:
    """Raise `Changed` unless the row, which the caller has locked, has one of the ETags that are ``wanted``."""
    if wanted is not None and etag_of(row, shown) not in wanted:
        raise Changed
