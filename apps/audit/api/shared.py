"""What the API of the audit has in common: periods, criteria, and whose something new is."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Q
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.audit.search import Search, SearchRefused, id_bounds, read_search
from apps.orgs.models import Organization, User
from apps.orgs.rest.fields import Reference
from apps.orgs.rest.filters import (
    PAGING,
    Filter,
    QueryFilters,
    as_moment,
    query_values,
    read_value,
)
from apps.orgs.roles import Action
from apps.orgs.scoping import organizations_of

PERIOD = {
    "since": Filter("timestamp__gte", as_moment, "From this moment on (ISO 8601)."),
    "until": Filter("timestamp__lt", as_moment, "Before this moment (ISO 8601)."),
}


class PeriodFilters(QueryFilters):
    """Filters that let the database skip the partitions outside of the period."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Apply each filter that the request gives."""
        filters: Mapping[str, Filter] = getattr(view, "filters", {})
        for name, text in query_values(request, PAGING | filters.keys()).items():
            if name in filters:
                value = read_value(name, text, filters[name].read)
                queryset = queryset.filter(_id_bounds(name, value), **{filters[name].lookup: value})
        return queryset


def _id_bounds(name: str, value: Any) -> Q:
    return id_bounds(Search({}, {name: value})) if name in PERIOD else Q()


def read_criteria(given: Mapping[str, str]) -> Search:
    """Read a search. Raises `ValidationError`, naming each criterion that is wrong."""
    try:
        return read_search(given)
    except SearchRefused as refused:
        raise ValidationError(dict(refused.problems)) from refused


class OrganizationId(Reference):
    """The id of an organization, in a column that is no reference."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Organization, source="organization_id", **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the id of an organization that the caller may see."""
        return super().to_internal_value(data).pk


def owner_of(caller: User, label: str, organization_id: UUID | None) -> UUID | None:
    """Return the organization that something new is for: the one that is named, or the caller's only one."""
    if organization_id is not None or caller.is_superuser:
        return organization_id
    own = organizations_of(caller, Action.ADD, label)
    if len(own) != 1:
        raise ValidationError({"organization": "Name the organization: you are in several."})
    return next(iter(own))
