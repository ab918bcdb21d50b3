"""The admin pages of organizations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import capfirst

from apps.audit.changes import state_of
from apps.gateway import consequences
from apps.orgs.admin.shared import GUIDED, STATE_COLOURS, KeepsAdmins, MembershipInline, page_of
from apps.orgs.admin_forms import ReasonForm
from apps.orgs.models import Organization, UsageTag, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import (
    Question,
    ScopedInline,
    SpendingAdmin,
    badge,
    detail_action,
    user_of,
)
from apps.orgs.scoping import may, visible

CONTENTS = (
    "orgs.application",
    "orgs.apikey",
    "policies.policy",
    "orgs.providercredential",
    "gateway.modelroute",
    "alerts.destination",
)
"""What an organization's page leads to, in the order in which one sets it up."""


@dataclass(frozen=True, slots=True)
class Part:
    """What an organization has of one kind: how many, and the addresses of the list and of a new one."""

    title: str
    count: int | None
    list: str
    add: str


class MembersInline(MembershipInline):
    """An organization's people."""

    fields = ["user", "role", "calls_for"]
    readonly_fields = ("calls_for",)
    autocomplete_fields = ["user"]
    verbose_name = "member"
    verbose_name_plural = "members"


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


@admin.register(Organization)
class OrganizationAdmin(KeepsAdmins, SpendingAdmin):
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
            list=f"{page_of(label, 'changelist')}?organization__id__exact={organization.pk}",
            add=f"{page_of(label, 'add')}?organization={organization.pk}" if addable else "",
        )
    if may(user, Action.VIEW, "audit.requestrecord", organization.pk):
        link = f"{page_of('audit.requestrecord', 'changelist')}?organization={organization.pk}"
        yield Part("Requests", None, link, "")
