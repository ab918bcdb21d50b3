"""What the admin pages of this app have in common."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from apps.orgs.admin_forms import MembershipForm, MembershipFormSet
from apps.orgs.admins import loses_its_admins, only_admin_of, said_of
from apps.orgs.models import Membership, User
from apps.orgs.roles import Role
from apps.orgs.scoped_admin import ScopedAdmin, ScopedInline, user_of

STATE_COLOURS = {
    "active": "success",
    "suspended": "danger",
    "inactive": "danger",
    "revoked": "danger",
    "expired": "warning",
    "unreadable": "danger",
}


GUIDED = "guided"
"""The parameter of an address that says that the person is being led through setting an organization up."""


class MembershipInline(ScopedInline):
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


class KeepsAdmins(ScopedAdmin):
    """A page on which an organization can lose its last admin: the record of that says so."""

    def consequence(self, before: models.Model, after: models.Model | None) -> str:
        """Return that an organization has no admin any more, where that is so."""
        if isinstance(before, Membership) and (after is None or getattr(after, "role", "") != Role.ADMIN.value):
            return said_of([before.organization] if loses_its_admins(before.organization_id, [before.pk]) else [])
        if isinstance(before, User) and (after is None or not getattr(after, "is_active", True)):
            return said_of(only_admin_of(before) if before.is_active else [])
        return super().consequence(before, after)


def page_of(label: str, page: str) -> str:
    """Return the address of a page of a model, such as its "changelist"."""
    return reverse(f"admin:{label.replace('.', '_')}_{page}")
