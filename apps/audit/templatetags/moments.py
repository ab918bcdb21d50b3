"""Filters that show times: ``{{ record.timestamp|moment }}``."""

from datetime import datetime
from typing import Any

from django.template import Library

from apps.audit import moments

register = Library()


@register.filter
def moment(when: datetime | None) -> str:
    """Return a time as HTML, a dash for none."""
    return moments.moment(when) if when else "-"


@register.filter
def contents(field: Any) -> Any:
    """Return what a field that is only shown says; a time as HTML. For the theme's template of such fields."""
    found = getattr(field, "resolved_field", None)
    value = found[2] if found else None
    if isinstance(value, datetime):
        return moments.moment(value)
    return field.contents() if hasattr(field, "contents") else ""
