"""How the values of a search are read from text, the same from an address, a form and a stored search."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_date, parse_datetime

from apps.audit.money import nano_from_usd

MAX_TEXT_CHARACTERS = 512
MOST_USD = 1_000_000_000
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_USD = re.compile(r"\d{1,12}(?:\.\d{1,9})?")


def as_uuid(text: str) -> UUID:
    """Read an id in its canonical form. Raises `ValueError`."""
    if not _UUID.fullmatch(text):
        raise ValueError("Must be an id (a UUID).")
    return UUID(text)


def uuid_or_none(value: Any) -> UUID | None:
    """Return the id that something says in any of its forms, ``None`` for what is none."""
    try:
        return UUID(str(value))
    except ValueError:
        return None


def as_text(text: str) -> str:
    """Read a name or a label. Raises `ValueError`."""
    if len(text) > MAX_TEXT_CHARACTERS or _NOT_TEXT.search(text):
        raise ValueError("Must be a text of at most " + str(MAX_TEXT_CHARACTERS) + " characters.")
    return text


def as_moment(text: str) -> datetime:
    """Read a date and time, or a date (its start), in ISO 8601; UTC if it names no zone. Raises `ValueError`."""
    # A plus sign that was not escaped arrives as a space.
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", text)
    try:
        moment = parse_datetime(text) or _midnight(parse_date(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        raise ValueError("Must be a date or a date and time in ISO 8601, such as 2026-01-31T09:00:00Z.") from None


def as_choice(*choices: str) -> Callable[[str], str]:
    """Return a reader of one of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("Must be one of " + ", ".join(choices) + ".")
        return text

    return read


def as_usd(text: str) -> int:
    """Read US dollars, with at most nine decimals; return nano-USD. Raises `ValueError`."""
    try:
        usd = Decimal(text) if _USD.fullmatch(text) else Decimal(-1)
    except InvalidOperation:
        usd = Decimal(-1)
    if not 0 <= usd <= MOST_USD:
        raise ValueError(f"Must be US dollars from 0 to {MOST_USD}, such as 0.25.")
    return nano_from_usd(usd)


def without_odd_characters(name: str) -> str:
    """Return a parameter's name as it can be shown and stored."""
    return _NOT_TEXT.sub("?", name)


def _midnight(day: date | None) -> datetime:
    if day is None:
        raise ValueError
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
