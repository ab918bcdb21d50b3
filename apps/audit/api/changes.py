"""The API of change records."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from apps.audit.api.shared import PERIOD, PeriodFilters
from apps.audit.models import ChangeRecord
from apps.orgs.rest.filters import Filter, as_text, choice
from apps.orgs.rest.views import Listing


class ChangeSerializer(serializers.ModelSerializer[ChangeRecord]):
    """One change of the configuration. ``before`` and ``after`` hold what differs, secrets only as marks."""

    organization = serializers.UUIDField(source="organization_id", allow_null=True)
    actor = serializers.UUIDField(source="actor_id", allow_null=True)

    class Meta:
        model = ChangeRecord
        fields = [
            "id",
            "timestamp",
            "organization",
            "actor",
            "actor_name",
            "via",
            "address",
            "action",
            "object_type",
            "object_id",
            "object_name",
            "before",
            "after",
            "reason",
        ]


@extend_schema(tags=["changes"])
class ChangeListing(Listing[ChangeRecord]):
    """The record of who changed what."""

    model = ChangeRecord
    serializer_class = ChangeSerializer
    filter_backends = [PeriodFilters]
    filters = {
        "organization": Filter("organization_id"),
        "actor": Filter("actor_id"),
        "action": Filter("action", as_text),
        "via": choice("via", "admin", "api", "command"),
        "object_type": Filter("object_type", as_text, "Such as policies.policy."),
        "object_id": Filter("object_id", as_text),
        **PERIOD,
    }
