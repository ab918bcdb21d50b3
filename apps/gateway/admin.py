"""The admin page of model routes."""

from typing import Any

from django.contrib import admin
from django.db.models import Q

from apps.gateway.models import ModelRoute
from apps.orgs.models import ProviderCredential
from apps.orgs.scoped_admin import ScopedAdmin, ScopedForm, badge
from apps.orgs.scoping import visible


class RouteForm(ScopedForm):
    """A route; one that a superadmin led to the platform's credential may stay with it."""

    class Meta:
        model = ModelRoute
        fields = ["organization", "model", "credential", "upstream_model", "priority", "is_active"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "credential" in self.fields:
            own = visible(ProviderCredential.objects.all(), self.person).values("pk")
            stays = Q(pk__in=own) | Q(pk=self.instance.credential_id)
            choices = ProviderCredential.objects.filter(stays).select_related("organization")
            self.fields["credential"].queryset = choices  # type: ignore[attr-defined]  # a field with rows


@admin.register(ModelRoute)
class ModelRouteAdmin(ScopedAdmin):
    """Which provider serves a model."""

    when_empty = "A route leads a model's name to a credential. A credential's test lists models and makes routes."
    form = RouteForm
    list_display = ["model", "priority", "credential", "upstream_name", "serves", "current_state"]
    list_filter = ["organization", "is_active"]
    list_select_related = ["organization", "credential"]
    search_fields = ["model", "upstream_model", "credential__name"]
    autocomplete_fields = ["organization", "credential"]
    fields = ["organization", "model", "credential", "upstream_model", "priority", "is_active"]

    @admin.display(description="Sent as")
    def upstream_name(self, route: ModelRoute) -> str:
        """Return the provider's name of the model."""
        return route.upstream_model or "the same"

    @admin.display(description="Serves")
    def serves(self, route: ModelRoute) -> str:
        """Return whose requests take it."""
        return str(route.organization or "Every organization")

    @badge("State", {"active": "success", "inactive": "danger"})
    def current_state(self, route: ModelRoute) -> str:
        """Return whether it is taken."""
        return "active" if route.is_active else "inactive"
