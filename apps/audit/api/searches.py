"""The API of saved searches."""

from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from apps.audit.api.shared import OrganizationId, owner_of, read_criteria
from apps.audit.models import SavedSearch
from apps.orgs.rest.fields import Flag, ObjectSerializer, Text
from apps.orgs.rest.filters import Filter, as_flag, as_text
from apps.orgs.rest.views import Collection


class SavedSearchSerializer(ObjectSerializer[SavedSearch]):
    """A search under a name."""

    organization = OrganizationId(required=False, allow_null=True, help_text="Left out: your only one.")
    owner = serializers.UUIDField(source="owner_id", read_only=True)
    is_shared = Flag(required=False, help_text="Whether everyone in the organization has it.")
    search = serializers.DictField(
        source="criteria", child=Text(allow_blank=False), help_text="The parameters of audit-logs."
    )

    class Meta(ObjectSerializer.Meta):
        model = SavedSearch
        fields = ["id", "organization", "owner", "owner_name", "name", "is_shared", "search", "created_at"]
        read_only_fields = ["owner_name"]
        fixed = ("organization",)

    def validate_search(self, given: dict[str, str]) -> dict[str, str]:
        """Return the search as it is kept. Raises `ValidationError` for one that cannot be read."""
        return dict(read_criteria(given).given)


@extend_schema(tags=["saved-searches"])
class SavedSearchCollection(Collection[SavedSearch]):
    """Searches that are kept: one's own, and those that are shared in the organization."""

    model = SavedSearch
    serializer_class = SavedSearchSerializer
    ordered_by = "created_at"
    names = {"criteria": "search"}
    filters = {
        "organization": Filter("organization_id"),
        "name": Filter("name", as_text),
        "is_shared": Filter("is_shared", as_flag),
    }

    def get_queryset(self) -> "QuerySet[SavedSearch]":
        """Return those that are shared, and the caller's own."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False) or self.caller.is_superuser:
            return rows
        return rows.filter(Q(is_shared=True) | Q(owner_id=self.caller.pk))

    def add(self, values: dict[str, Any]) -> tuple[SavedSearch, dict[str, str]]:
        """Store a search as the caller's own."""
        values["organization_id"] = owner_of(self.caller, self.label, values.get("organization_id"))
        return super().add({**values, "owner_id": self.caller.pk, "owner_name": str(self.caller)})
