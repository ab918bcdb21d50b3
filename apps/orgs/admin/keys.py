"""The admin pages of API keys."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.audit.changes import state_of
from apps.gateway import consequences
from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.admin.shared import STATE_COLOURS
from apps.orgs.admin_forms import (
    KeyAddForm,
    ReasonForm,
    RotateForm,
    handles_personal_key,
    key_owners,
)
from apps.orgs.models import ApiKey
from apps.orgs.public_address import public_url
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import (
    GovernedAdmin,
    Question,
    ScopedForm,
    actor_of,
    badge,
    detail_action,
    user_of,
)
from apps.policies.rotation import rotate

if TYPE_CHECKING:
    from django.contrib.admin import SimpleListFilter as DropdownFilter
else:
    from unfold.contrib.filters.admin import DropdownFilter


class KeyStateFilter(DropdownFilter):
    """By whether a key works."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the states of a key."""
        return [(state, state.capitalize()) for state in ("active", "expired", "revoked")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the keys to those in the state, now."""
        expired = Q(expires_at__lte=timezone.now())
        match self.value():
            case "active":
                return queryset.filter(~expired | Q(expires_at=None), revoked_at=None)
            case "expired":
                return queryset.filter(expired, revoked_at=None)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(GovernedAdmin):
    """Credentials to call the gateway with. The text of one is shown once, in the answer that makes it."""

    when_empty = "A key is what an application calls with. It is shown once, with examples to copy."
    list_display = ["name", "shown_prefix", "current_state", "owner", "organization", "expires_at", "created_at"]
    list_filter = [KeyStateFilter, "organization", "application"]
    list_select_related = ["organization", "application", "user"]
    search_fields = ["name", "prefix", "application__name", "user__username"]
    autocomplete_fields = ["application", "organization"]
    readonly_fields = ["owner", "shown_prefix", "current_state", "revoked_at", "created_at"]
    add_fieldsets = [(None, {"fields": ["owner", "application", "user", "organization", "name", "expires_at"]})]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "name",
                    "expires_at",
                    "owner",
                    "organization",
                    "shown_prefix",
                    "current_state",
                    "revoked_at",
                    "created_at",
                ]
            },
        )
    ]
    # A page for an existing key has no choice of owner.
    conditional_fields = {
        "application": "typeof owner === 'undefined' || owner == 'application'",
        "user": "typeof owner === 'undefined' || owner == 'user'",
        "organization": "typeof owner === 'undefined' || owner == 'user'",
    }
    actions_detail = ["rotate_key", "revoke_key", "explain"]
    governed_as = "key"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form for a new key, or for what may change of one."""
        return super().get_form(request, obj, change, **kwargs, form=ScopedForm if obj else KeyAddForm)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return what is shown only; a new key has nothing to show."""
        return super().get_readonly_fields(request, obj) if obj else []

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest | None, **kwargs: Any) -> Any:
        """Offer as owners those for whom the person may issue keys."""
        if db_field.name == "user" and request is not None:
            kwargs["queryset"] = key_owners(user_of(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    # --- Columns

    @admin.display(description="Begins with")
    def shown_prefix(self, key: ApiKey) -> str:
        """Return what a key's text begins with."""
        return f"lcp_{key.prefix}_…"

    @badge("State", STATE_COLOURS)
    def current_state(self, key: ApiKey) -> str:
        """Return whether the key works."""
        return key.state

    @admin.display(description="Belongs to")
    def owner(self, key: ApiKey) -> str:
        """Return whose key it is."""
        return f"{key.application} (application)" if key.application else f"{key.user} (person)"

    # --- Making one

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Issue a new key, or change an existing one's name or expiry."""
        if change:
            super().save_model(request, obj, form, change)
            return
        self.refuse_out_of_reach(request, obj, None, Action.ADD)
        issued = keys.issue(
            organization=obj.organization,
            application=obj.application,
            user=obj.user,
            name=obj.name,
            expires_at=obj.expires_at,
        )
        self.record(request, "create", issued.row, after=state_of(issued.row))
        # The text travels on the row in memory to the answer, and nowhere else.
        vars(obj).update(vars(issued.row), issued_key=issued)

    def refuse_out_of_reach(
        self, request: HttpRequest, row: models.Model, before: models.Model | None, action: Action
    ) -> None:
        """Raise `PermissionDenied`, too, for another person's key by which the person would gain rights."""
        super().refuse_out_of_reach(request, row, before, action)
        assert isinstance(row, ApiKey)
        if row.user and not handles_personal_key(user_of(request), row.user, row.organization):
            raise PermissionDenied

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Show the form with one way on: to the new key."""
        context = {"show_save_and_continue": False, "show_save_and_add_another": False, **(extra_context or {})}
        return super().add_view(request, form_url, context)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Answer with the key's text, this once."""
        return self.show_once(request, obj.issued_key)

    def show_once(self, request: HttpRequest, issued: keys.IssuedKey, onward: str = "") -> HttpResponse:
        """Return the page with a new key's text, which leads to the key's own page or ``onward``."""
        return self.page(
            request,
            "control_plane/key_once.html",
            "Your new API key",
            issued.row,
            key=issued.text,
            base_url=public_url(request, "v1"),
            model=_first_model(issued.row),
            onward=onward,
        )

    # --- Ending one

    def has_revoke_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may end the key, and it is not ended yet."""
        key = self.get_object(request, object_id)
        return key is not None and key.revoked_at is None and self.has_change_permission(request, key)

    def has_rotate_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may have the key's successor, and it is active."""
        key = self.get_object(request, object_id)
        if key is None or key.state != "active" or not self.has_change_permission(request, key):
            return False
        return key.user is None or handles_personal_key(user_of(request), key.user, key.organization)

    @detail_action("Revoke", permission="revoke", icon="block")
    def revoke_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End a key for good."""
        if not self.has_revoke_permission(request, object_id):
            raise PermissionDenied
        key = self.row_for(request, object_id, Action.CHANGE)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                before = state_of(key)
                key.revoke()
                self.record(
                    request,
                    "revoke",
                    key,
                    before=before,
                    after=state_of(key),
                    reason=form.cleaned_data["reason"],
                )
            messages.success(request, f"{key} is revoked. Requests with it are refused from now on.")
            return self.back_to(key)
        text = "This cannot be undone. To replace it without a break, rotate it instead."
        said = consequences.of_revoking(key)
        return self.ask(request, key, Question(f"Revoke {key}?", text, "Revoke", form, said, ends=True))

    @detail_action("Rotate", permission="rotate", icon="autorenew")
    def rotate_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Replace a key by a new one, which is shown once."""
        if not self.has_rotate_permission(request, object_id):
            raise PermissionDenied
        key = self.row_for(request, object_id, Action.CHANGE)
        form = RotateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                issued = rotate(key, actor_of(request), timedelta(seconds=int(form.cleaned_data["grace"])))
            except ValidationError as error:
                form.add_error(None, error)
            else:
                return self.show_once(request, issued)
        text = "A new key with the same owner, name and policies is made and shown once. The old one ends when you say."
        return self.ask(request, key, Question(f"Rotate {key}?", text, "Make the new key", form))


def _first_model(key: ApiKey) -> str:
    """Return a model to show in an example: one that the organization has a route to, or a simulated one."""
    whose = Q(organization_id=key.organization_id) | Q(organization=None)
    routes = ModelRoute.objects.filter(whose, is_active=True).exclude(model__contains="*").exclude(model__contains="?")
    own_first = routes.order_by(models.F("organization").asc(nulls_last=True), "model")
    named = own_first.values_list("model", flat=True).first()
    return named or ("sim-echo" if settings.SIMULATED_PROVIDER else "your-model")
