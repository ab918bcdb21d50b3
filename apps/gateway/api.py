"""The JSON API of the routes: which provider serves a model."""

from drf_spectacular.utils import extend_schema

from apps.gateway.models import ModelRoute
from apps.orgs.models import Organization, ProviderCredential
from apps.orgs.rest.fields import ObjectSerializer, Reference, Whole
from apps.orgs.rest.filters import Filter, as_flag, as_text
from apps.orgs.rest.views import Collection

MAX_PRIORITY = 32_767


class RouteSerializer(ObjectSerializer[ModelRoute]):
    """A target for a model name."""

    organization = Reference(Organization, required=False, allow_null=True, help_text="None: for all organizations.")
    credential = Reference(ProviderCredential)
    priority = Whole(required=False, min_value=0, max_value=MAX_PRIORITY, help_text="Lower is tried first.")

    class Meta(ObjectSerializer.Meta):
        model = ModelRoute
        fields = ["id", "organization", "model", "credential", "upstream_model", "priority", "is_active"]
        fixed = ("organization",)


@extend_schema(tags=["routes"])
class RouteCollection(Collection[ModelRoute]):
    """Routes from the models that clients name to providers."""

    model = ModelRoute
    serializer_class = RouteSerializer
    unique = "priority"
    filters = {
        "organization": Filter("organization_id"),
        "credential": Filter("credential_id"),
        "model": Filter("model", as_text),
        "is_active": Filter("is_active", as_flag),
    }
