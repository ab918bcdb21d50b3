"""The admin pages of applications."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from apps.gateway.playground import may_try
from apps.orgs.admin.shared import STATE_COLOURS
from apps.orgs.models import ApiKey, Application
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import (
    GovernedAdmin,
    ScopedInline,
    SpendingAdmin,
    badge,
    detail_action,
    user_of,
)
from apps.orgs.scoping import may


class KeysInline(ScopedInline):
    """An application's keys, to look at and to open."""

    model = ApiKey
    readonly_fields = ("name", "shown_prefix", "key_state", "expires_at", "created_at")
    fields = readonly_fields
    show_change_link = True
    can_delete = False
    verbose_name_plural = "API keys"

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Never here: a key's text needs a page of its own."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Never here: a key has a page of its own."""
        return False

    @admin.display(description="Begins with")
    def shown_prefix(self, key: ApiKey) -> str:
        """Return what a key's text begins with."""
        return f"lcp_{key.prefix}_…"

    @admin.display(description="State")
    def key_state(self, key: ApiKey) -> str:
        """Return whether the key works."""
        return key.state


@admin.register(Application)
class ApplicationAdmin(GovernedAdmin, SpendingAdmin):
    """Software that calls the gateway."""

    when_empty = "An application is a program of yours that calls models. Create one, then make a key for it."
    list_display = ["name", "organization", "current_state", "created_at"]
    list_filter = ["organization", "is_active"]
    list_select_related = ["organization"]
    search_fields = ["name", "id"]
    autocomplete_fields = ["organization"]
    fields = ["organization", "name", "is_active", "id", "created_at"]
    readonly_fields = ["id", "created_at"]
    inlines = [KeysInline]
    actions_detail = ["new_key", "try_out", "explain", "usage"]
    governed_as = spends_as = "application"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; a new application has no id to show yet."""
        return super().get_fields(request, obj) if obj else ["organization", "name"]

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """Return the keys of an application that exists."""
        return super().get_inlines(request, obj) if obj else []

    @badge("State", STATE_COLOURS)
    def current_state(self, application: Application) -> str:
        """Return whether the application's requests are served."""
        return "active" if application.is_active else "inactive"

    def has_new_key_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may make keys for the application."""
        row = self.get_object(request, object_id)
        return row is not None and may(user_of(request), Action.ADD, "orgs.apikey", row.organization_id)

    @detail_action("New API key", permission="new_key", icon="key")
    def new_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the form for a new key of this application."""
        row = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(f"{reverse('admin:orgs_apikey_add')}?application={row.pk}")

    def has_try_out_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may send requests in the application's name, which is served."""
        row = self.get_object(request, object_id)
        return row is not None and row.is_active and may_try(user_of(request), row.organization_id)

    @detail_action("Try it out", permission="try_out", icon="play_circle")
    def try_out(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the playground with this application."""
        row = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(f"{reverse('admin:playground')}?application={row.pk}")
