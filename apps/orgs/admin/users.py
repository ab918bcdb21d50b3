"""The admin pages of users."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import update_session_auth_hash
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from apps.orgs.admin.shared import STATE_COLOURS, KeepsAdmins, MembershipInline, page_of
from apps.orgs.admin_forms import PasswordForm, UserAddForm, UserForm
from apps.orgs.models import Membership, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import (
    GovernedAdmin,
    Question,
    ScopedRelatedFilter,
    SpendingAdmin,
    badge,
    detail_action,
    user_of,
)
from apps.orgs.scoping import may, visible


class RolesInline(MembershipInline):
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


@admin.register(User)
class UserAdmin(KeepsAdmins, GovernedAdmin, SpendingAdmin):
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
        return HttpResponseRedirect(f"{page_of('audit.changerecord', 'changelist')}?q={user.pk}")

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
