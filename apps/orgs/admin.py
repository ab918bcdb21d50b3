"""The admin pages of organizations, applications, API keys, users and providers' credentials."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst

from apps.audit.changes import state_of
from apps.gateway import consequences
from apps.gateway.addresses import allowed_networks
from apps.gateway.catalogue import list_models
from apps.gateway.configuration import VENDOR_URLS
from apps.gateway.models import ModelRoute
from apps.gateway.offers import new_routes, offers
from apps.gateway.playground import may_try
from apps.gateway.providers.base import Endpoint, UpstreamError
from apps.orgs import keys
from apps.orgs.admin_forms import (
    CredentialForm,
    KeyAddForm,
    MembershipForm,
    MembershipFormSet,
    PasswordForm,
    ReasonForm,
    RotateForm,
    UserAddForm,
    UserForm,
    handles_personal_key,
    key_owners,
)
from apps.orgs.admins import loses_its_admins, only_admin_of, said_of
from apps.orgs.encryption import DecryptionError, KeysUnavailable, Purpose
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, UsageTag, User
from apps.orgs.public_address import public_url
from apps.orgs.roles import Action, Role
from apps.orgs.scoped_admin import (
    GovernedAdmin,
    Question,
    ScopedAdmin,
    ScopedForm,
    ScopedInline,
    ScopedRelatedFilter,
    SpendingAdmin,
    actor_of,
    badge,
    detail_action,
    user_of,
)
from apps.orgs.scoping import may, visible
from apps.policies.rotation import rotate

if TYPE_CHECKING:
    from django.contrib.admin import SimpleListFilter as DropdownFilter
else:
    from unfold.contrib.filters.admin import DropdownFilter

# Groups are not how rights are given here; importing Django's module for them is what registers their page.
assert admin.site.get_model_admin(Group).__class__ is GroupAdmin
admin.site.unregister(Group)

STATE_COLOURS = {
    "active": "success",
    "suspended": "danger",
    "inactive": "danger",
    "revoked": "danger",
    "expired": "warning",
    "unreadable": "danger",
}
UNREADABLE = "cannot be read: enter it again"
GUIDED = "guided"
"""The parameter of an address that says that the person is being led through setting an organization up."""

CONTENTS = (
    "orgs.application",
    "orgs.apikey",
    "policies.policy",
    "orgs.providercredential",
    "gateway.modelroute",
    "alerts.destination",
)
"""What an organization's page leads to, in the order in which one sets it up."""
MOST_ROUTES = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """What an organization has of one kind: how many, and the addresses of the list and of a new one."""

    title: str
    count: int | None
    list: str
    add: str


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


class _MembershipInline(ScopedInline):
    """Roles, of which an organization's last admin is not taken in passing."""

    model = Membership
    form = MembershipForm
    formset = MembershipFormSet

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Return the formset's class, which knows the person."""
        formset: Any = super().get_formset(request, obj, **kwargs)
        formset.person = user_of(request)
        return formset

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        """Return the memberships with what their rows name."""
        return super().get_queryset(request).select_related("application")

    @admin.display(description="Calls for")
    def calls_for(self, membership: Membership) -> str:
        """Return the application that the identity provider says the person calls for."""
        return str(membership.application or "-")


class _KeepsAdmins(ScopedAdmin):
    """A page on which an organization can lose its last admin: the record of that says so."""

    def consequence(self, before: models.Model, after: models.Model | None) -> str:
        """Return that an organization has no admin any more, where that is so."""
        if isinstance(before, Membership) and (after is None or getattr(after, "role", "") != Role.ADMIN.value):
            return said_of([before.organization] if loses_its_admins(before.organization_id, [before.pk]) else [])
        if isinstance(before, User) and (after is None or not getattr(after, "is_active", True)):
            return said_of(only_admin_of(before) if before.is_active else [])
        return super().consequence(before, after)


class MembersInline(_MembershipInline):
    """An organization's people."""

    fields = ["user", "role", "calls_for"]
    readonly_fields = ("calls_for",)
    autocomplete_fields = ["user"]
    verbose_name = "member"
    verbose_name_plural = "members"


class RolesInline(_MembershipInline):
    """A user's roles."""

    readonly_fields = ("where", "calls_for")
    verbose_name = "role in an organization"
    verbose_name_plural = "roles in organizations"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; who may only look has no choice of the organization that could be shown."""
        return ["organization" if user_of(request).is_superuser else "where", "role", "calls_for"]

    @admin.display(description="Organization")
    def where(self, membership: Membership) -> str:
        """Return the organization's name."""
        return str(membership.organization)


class UsageTagsInline(ScopedInline):
    """The metadata keys by which an organization's usage is broken down."""

    model = UsageTag
    fields = ["key"]
    max_num = UsageTag.MOST
    verbose_name = "metadata key of the usage page"
    verbose_name_plural = "metadata keys of the usage page"

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Return the formset's class, which takes no more than there may be."""
        return super().get_formset(request, obj, validate_max=True, **kwargs)


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


@admin.register(Organization)
class OrganizationAdmin(_KeepsAdmins, SpendingAdmin):
    """Tenants."""

    when_empty = "An organization is a tenant: everything else belongs to one."
    change_form_after_template = "control_plane/organization_contents.html"
    list_display = ["name", "current_state", "application_count", "created_at"]
    list_filter = ["state"]
    search_fields = ["name", "id"]
    ordering = ["name"]
    fields = ["name", "id", "current_state", "created_at"]
    readonly_fields = ["id", "current_state", "created_at"]
    inlines = [MembersInline, UsageTagsInline]
    actions_detail = ["set_up", "usage", "suspend", "activate"]
    spends_as = "organization"

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Organization]":
        """Return the organizations with how many applications each has."""
        rows: models.QuerySet[Organization] = super().get_queryset(request)
        return rows.annotate(applications_count=models.Count("applications", distinct=True))

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """Return what else is on the page; a new organization has no usage to break down yet."""
        inlines = super().get_inlines(request, obj)
        return inlines if obj else [inline for inline in inlines if inline is not UsageTagsInline]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; a new organization has a name alone."""
        return super().get_fields(request, obj) if obj else ["name"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return what is shown only: names are unique on the platform, so only superadmins may try some."""
        fixed = super().get_readonly_fields(request, obj)
        return fixed if user_of(request).is_superuser else [*fixed, "name"]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the organization, and what it has."""
        organization = self.get_object(request, object_id)
        contents = list(_contents(user_of(request), organization)) if organization else []
        return super().change_view(request, object_id, form_url, {"contents": contents, **(extra_context or {})})

    @badge("State", STATE_COLOURS)
    def current_state(self, organization: Organization) -> str:
        """Return whether the organization's requests are served."""
        return organization.state

    @admin.display(description="Applications")
    def application_count(self, organization: Any) -> int:
        """Return how many applications it has."""
        return int(organization.applications_count)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Go on where the person came from: to setting the new organization up, or to the list."""
        if request.GET.get(GUIDED):
            messages.success(request, f"{obj} is there. Set it up now, or make somebody its admin.")
            return HttpResponseRedirect(reverse("admin:setup", args=[obj.pk]))
        return super().response_add(request, obj, post_url_continue)

    def has_set_up_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may set it up."""
        row = self.get_object(request, object_id)
        return row is not None and may(user_of(request), Action.ADD, "orgs.application", row.pk)

    @detail_action("Set up", permission="set_up", icon="checklist")
    def set_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the page that leads through setting it up."""
        row = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(reverse("admin:setup", args=[row.pk]))

    def has_suspend_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may suspend it now."""
        return self._may_turn(request, object_id, Organization.State.ACTIVE)

    def has_activate_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may serve it again now."""
        return self._may_turn(request, object_id, Organization.State.SUSPENDED)

    def _may_turn(self, request: HttpRequest, object_id: str, state: Organization.State) -> bool:
        row = self.get_object(request, object_id)
        return user_of(request).is_superuser and row is not None and row.state == state

    @detail_action("Suspend", permission="suspend", icon="block")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse all requests of an organization from now on."""
        if not self.has_suspend_permission(request, object_id):
            raise PermissionDenied
        organization = self.row_for(request, object_id, Action.CHANGE)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            return self._turn(request, organization, Organization.State.SUSPENDED, "suspend", reason)
        text = "All requests with its keys are refused from now on."
        said = consequences.of_suspending(organization)
        question = Question(f"Suspend {organization}?", text, "Suspend", form, said, ends=True)
        return self.ask(request, organization, question)

    @detail_action("Activate", permission="activate", icon="check_circle")
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Serve a suspended organization again."""
        if not self.has_activate_permission(request, object_id):
            raise PermissionDenied
        organization = self.row_for(request, object_id, Action.CHANGE)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            return self._turn(request, organization, Organization.State.ACTIVE, "activate", reason)
        text = "Requests with its keys are served again from now on."
        return self.ask(request, organization, Question(f"Activate {organization}?", text, "Activate", form))

    def _turn(
        self, request: HttpRequest, organization: Organization, state: Organization.State, action: str, reason: str
    ) -> HttpResponseRedirect:
        with transaction.atomic():
            before = state_of(organization)
            organization.state = state
            organization.save(update_fields=["state"])
            self.record(request, action, organization, before=before, after=state_of(organization), reason=reason)
        messages.success(request, f"{organization} is {state.value} now.")
        return self.back_to(organization)


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


@admin.register(User)
class UserAdmin(_KeepsAdmins, GovernedAdmin, SpendingAdmin):
    """People and their roles."""

    list_display = ["username", "full_name", "email", "current_state", "is_superuser", "roles"]
    list_filter = ["is_active", "is_superuser", ("memberships__organization", ScopedRelatedFilter)]
    search_fields = ["username", "full_name", "email"]
    fields = ["username", "full_name", "email", "is_active", "is_superuser", "known_as", "last_login", "created_at"]
    readonly_fields = ["known_as", "last_login", "created_at"]
    add_fieldsets = [(None, {"fields": ["username", "full_name", "email", "password", "organization", "role"]})]
    inlines = [RolesInline]
    actions_detail = ["set_password", "changes", "explain", "usage"]
    governed_as = spends_as = "user"

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[User]":
        """Return the users, each with the roles that the person may see."""
        roles = visible(Membership.objects.select_related("organization"), user_of(request))
        return super().get_queryset(request).prefetch_related(Prefetch("memberships", roles, to_attr="seen_roles"))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form for a new user, or for an existing one."""
        return super().get_form(request, obj, change, **kwargs, form=UserForm if obj else UserAddForm)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return what is shown only; a new user has nothing to show."""
        return super().get_readonly_fields(request, obj) if obj else []

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """Return the roles of a user who exists; a new one gets the first with the form."""
        return super().get_inlines(request, obj) if obj else []

    @badge("State", STATE_COLOURS)
    def current_state(self, user: User) -> str:
        """Return whether the user may log in and use keys."""
        return "active" if user.is_active else "inactive"

    @admin.display(description="Identity provider knows them as")
    def known_as(self, user: User) -> str:
        """Return who they are at the identity provider, by subject and issuer."""
        return ", ".join(map(str, user.identities.all())) or "-"

    @admin.display(description="Roles")
    def roles(self, user: Any) -> str:
        """Return the user's roles where the person may see them."""
        return ", ".join(f"{m.role} of {m.organization}" for m in user.seen_roles)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether the person may make users: as members of an organization where they may add members."""
        return super().has_add_permission(request) or may(user_of(request), Action.ADD, "orgs.membership")

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may delete the user, which is never themselves."""
        return obj != request.user and super().has_delete_permission(request, obj)

    def refuse_out_of_reach(
        self, request: HttpRequest, row: models.Model, before: models.Model | None, action: Action
    ) -> None:
        """Let who may add members make users, since the form asks for the membership; else as everywhere."""
        if isinstance(row, User) and action is Action.ADD and self.has_add_permission(request):
            return
        super().refuse_out_of_reach(request, row, before, action)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store the user; a new one with the password and the first role."""
        if not change:
            obj.set_password(form.cleaned_data["password"] or None)
        super().save_model(request, obj, form, change)
        if not change and form.cleaned_data["organization"]:
            data = form.cleaned_data
            self.store(request, Membership(user=obj, organization=data["organization"], role=data["role"]), Action.ADD)

    def has_changes_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may see change records."""
        return may(user_of(request), Action.VIEW, "audit.changerecord")

    @detail_action("What they changed", permission="changes", icon="history")
    def changes(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the records of what the user changed."""
        user = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(f"{_page('audit.changerecord', 'changelist')}?q={user.pk}")

    def has_set_password_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may set the user's password: a superadmin, since the user may be elsewhere, too."""
        return user_of(request).is_superuser

    @detail_action("Set password", permission="set_password", icon="password")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give a user a new password, which ends their sessions."""
        if not self.has_set_password_permission(request, object_id):
            raise PermissionDenied
        user = self.row_for(request, object_id, Action.CHANGE)
        form = PasswordForm(user, request.POST or None)
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                user.set_password(form.cleaned_data["password"])
                user.save(update_fields=["password"])
                self.record(request, "change", user, before={"password": "(set)"}, after={"password": "(set anew)"})
            if user == request.user:
                update_session_auth_hash(request, user)
            messages.success(request, f"{user} has a new password.")
            return self.back_to(user)
        text = "The user's sessions end, and the user logs in with the new password."
        return self.ask(request, user, Question(f"Set the password of {user}", text, "Set password", form))


@admin.register(ProviderCredential)
class ProviderCredentialAdmin(ScopedAdmin):
    """Our credentials at the providers."""

    when_empty = "Add one to reach a provider, test it, and route its models from there."
    form = CredentialForm
    list_display = ["name", "provider", "organization_name", "shown_url", "shown_secret", "current_state"]
    list_filter = ["organization", "provider", "is_active"]
    list_select_related = ["organization", "data_key"]
    search_fields = ["name", "base_url"]
    autocomplete_fields = ["organization"]
    fields = ["organization", "name", "provider", "base_url", "secret", "shown_secret", "is_active"]
    readonly_fields = ["shown_secret"]
    actions_detail = ["test"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields: no input for the secret for those who may only look."""
        fields = list(super().get_fields(request, obj))
        if obj is None:
            fields.remove("shown_secret")
        elif not self.has_change_permission(request, obj):
            fields.remove("secret")
        return fields

    @admin.display(description="Serves")
    def organization_name(self, credential: ProviderCredential) -> str:
        """Return whom the credential serves."""
        return str(credential.organization or "Every organization")

    @admin.display(description="Address")
    def shown_url(self, credential: ProviderCredential) -> str:
        """Return where it leads."""
        return credential.base_url or "The vendor's own"

    @admin.display(description="Stored secret")
    def shown_secret(self, credential: ProviderCredential) -> str:
        """Return the last four characters of the secret, which are all that is readable."""
        if not credential.encrypted_secret:
            return "none"
        shown = f"…{credential.last_four}" if credential.last_four else "set"
        return f"{shown} ({UNREADABLE})" if credential.readable() is False else shown

    @badge("State", STATE_COLOURS)
    def current_state(self, credential: ProviderCredential) -> str:
        """Return whether it is used, or cannot be because its secret cannot be read."""
        if credential.readable() is False:
            return "unreadable"
        return "active" if credential.is_active else "inactive"

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the form; where the service of the keys is away, say so and leave everything as it was."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except KeysUnavailable:
            messages.error(request, "The secret could not be encrypted: the key service does not answer. Try again.")
            return HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store the credential, a new secret encrypted."""
        obj.take_secret(form.cleaned_data["secret"])
        super().save_model(request, obj, form, change)

    def secrets_set(self, form: Any) -> tuple[str, ...]:
        """Return the secret's column if the form sets it."""
        return ("encrypted_secret",) if form.cleaned_data["secret"] else ()

    # --- Testing one

    def has_test_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may use the secret to ask the provider for its models."""
        credential = self.get_object(request, object_id)
        return credential is not None and self.has_change_permission(request, credential)

    @detail_action("Test", permission="test", icon="network_check")
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask the provider for its models, and route those that the person chooses."""
        if not self.has_test_permission(request, object_id):
            raise PermissionDenied
        credential = self.row_for(request, object_id, Action.CHANGE)
        if request.method != "POST":
            text = "The provider is asked for its list of models, with the stored secret. That costs nothing."
            return self.ask(request, credential, Question(f"Test {credential}?", text, "Test", None))
        if "route" in request.POST:
            return self._route(request, credential)
        try:
            models = listed(credential, credential.secret(Purpose.TEST))
        except (UpstreamError, DecryptionError, KeysUnavailable) as error:
            return self.models_page(request, credential, (), refused=_said_of(error))
        return self.models_page(request, credential, models)

    def models_page(
        self, request: HttpRequest, credential: ProviderCredential, models: Iterable[str], *, refused: str = ""
    ) -> HttpResponse:
        """Return the page with what a test has found: the models, to be routed, or why it was ``refused``."""
        guided = GUIDED in request.GET or GUIDED in request.POST
        guide = reverse("admin:setup", args=[credential.organization_id]) if guided else ""
        return self.page(
            request,
            "control_plane/provider_models.html",
            f"Models of {credential}",
            credential,
            offers=offers(credential, models),
            refused=refused,
            test_url=_button(credential, "test"),
            may_route=may(user_of(request), Action.ADD, "gateway.modelroute", credential.organization_id),
            guide=guide,
        )

    def _route(self, request: HttpRequest, credential: ProviderCredential) -> HttpResponse:
        chosen = request.POST.getlist("model")[:MOST_ROUTES]
        try:
            with transaction.atomic():
                routes = new_routes(credential, chosen)
                for route in routes:
                    self.store(request, route, Action.ADD)
        except ValidationError as error:
            return self.models_page(request, credential, (), refused=" ".join(error.messages))
        count = f"{len(routes)} model{'' if len(routes) == 1 else 's'}"
        messages.success(request, f"{count} routed to {credential}." if routes else "No model was chosen.")
        if request.POST.get(GUIDED) and credential.organization_id is not None:
            return HttpResponseRedirect(reverse("admin:setup", args=[credential.organization_id]))
        return self.back_to(credential)


def listed(credential: ProviderCredential, secret: str) -> list[str]:
    """Return the models that a credential's provider lists for a secret. Raises `UpstreamError`."""
    url = credential.base_url or VENDOR_URLS.get(credential.provider, "")
    networks = allowed_networks()
    return list_models(Endpoint(credential.provider, url, secret), networks, simulated=settings.SIMULATED_PROVIDER)


def _said_of(error: Exception) -> str:
    if isinstance(error, UpstreamError):
        return error.message
    if isinstance(error, KeysUnavailable):
        return "The stored secret cannot be decrypted now: the key service does not answer. Try again."
    return "The stored secret cannot be read. Enter it again."


def _first_model(key: ApiKey) -> str:
    """Return a model to show in an example: one that the organization has a route to, or a simulated one."""
    whose = Q(organization_id=key.organization_id) | Q(organization=None)
    routes = ModelRoute.objects.filter(whose, is_active=True).exclude(model__contains="*").exclude(model__contains="?")
    own_first = routes.order_by(models.F("organization").asc(nulls_last=True), "model")
    named = own_first.values_list("model", flat=True).first()
    return named or ("sim-echo" if settings.SIMULATED_PROVIDER else "your-model")


def _contents(user: User, organization: Organization) -> Iterator[Part]:
    """Give what the organization has, as far as the person may see it."""
    for label in CONTENTS:
        model = apps.get_model(label)
        if not may(user, Action.VIEW, label, organization.pk):
            continue
        addable = may(user, Action.ADD, label, organization.pk)
        rows: QuerySet[models.Model] = QuerySet(model)
        yield Part(
            title=str(capfirst(model._meta.verbose_name_plural)),
            count=visible(rows, user).filter(organization=organization).count(),
            list=f"{_page(label, 'changelist')}?organization__id__exact={organization.pk}",
            add=f"{_page(label, 'add')}?organization={organization.pk}" if addable else "",
        )
    if may(user, Action.VIEW, "audit.requestrecord", organization.pk):
        link = f"{_page('audit.requestrecord', 'changelist')}?organization={organization.pk}"
        yield Part("Requests", None, link, "")


def _button(row: models.Model, action: str) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{action}", args=[row.pk])


def _page(label: str, page: str) -> str:
    return reverse(f"admin:{label.replace('.', '_')}_{page}")
