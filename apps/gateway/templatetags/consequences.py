"""What ends with what a page is about to delete: ``{% ends_with object as sentences %}``."""

from itertools import islice
from typing import Any

from django.db.models import Model, QuerySet
from django.template import Library

from apps.gateway.consequences import of_deleting

MOST_SAID = 20
"""Rows, out of those chosen to be deleted, of which it is said what ends with them."""

register = Library()


@register.simple_tag(takes_context=True)
def ends_with(context: Any, rows: "Model | QuerySet[Any] | None") -> list[str]:
    """Return sentences about one row or several that the reader may delete."""
    if rows is None or isinstance(rows, Model):
        return of_deleting([rows] if rows else [], context["request"].user)
    return of_deleting(islice(rows, MOST_SAID), context["request"].user)
