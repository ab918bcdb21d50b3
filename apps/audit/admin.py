"""The admin pages of what happened: the records of requests and of changes, to read and to search."""

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.db import models
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.dateparse import parse_date
from django.utils.html import format_html

from apps.audit.admin_filters import EXACT
from apps.audit.models import ChangeRecord, RequestRecord, RequestText
from apps.audit.uuid7 import first_id_at
from apps.gateway.why import why
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import MOST_CHOICES, ScopedAdmin, badge, differences, user_of
from apps.orgs.scoping import PATHS, visible

if TYPE_CHECKING:
    from django.contrib.admin import FieldListFilter as RangeDateFilter
    from django.contrib.admin import SimpleListFilter as DropdownFilter
    from django.contrib.admin import SimpleListFilter as TextFilter
else:
    from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter, TextFilter

STATUS_COLOURS = {
    "success": "success",
    "error": "danger",
    "blocked": "warning",
    "cancelled": "info",
    "interrupted": "danger",
}


class DayFilter(RangeDateFilter):
    """From one day to another (UTC), by the time in the id: so the database looks at those days alone."""

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to the chosen days, both included; a date that is none narrows nothing."""
        first, last = (_midnight(self.used_parameters.get(f"{self.field_path}_{end}")) for end in ("from", "to"))
        if first is not None:
            queryset = queryset.filter(id__gte=first_id_at(first))
        if last is not None:
            queryset = queryset.filter(id__lt=first_id_at(last + timedelta(days=1)))
        return queryset


class ModelFilter(TextFilter):
    """By a part of the model's name as it was asked for."""

    title = "model"
    parameter_name = "model_name"

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to the models that contain the text."""
        value = self.value()
        return queryset.filter(model__icontains=value) if value else queryset


class ProviderFilter(DropdownFilter):
    """By provider."""

    title = "provider"
    parameter_name = "served_by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the providers that there are."""
        return ProviderCredential.Provider.choices

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to those of the provider."""
        return queryset.filter(provider=self.value()) if self.value() else queryset


class ApplicationFilter(DropdownFilter):
    """By application, out of those that the person may see."""

    title = "application"
    parameter_name = "application"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the applications as (id, name)."""
        rows = visible(Application.objects.select_related("organization"), user_of(request))[:MOST_CHOICES]
        return [(str(row.pk), f"{row} ({row.organization})") for row in rows]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to those of the application."""
        chosen = _uuid(self.value() or "")
        return queryset.filter(application_id=chosen) if chosen else queryset


class OrganizationFilter(DropdownFilter):
    """By organization, offered to who may see several."""

    title = "organization"
    parameter_name = "organization"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the organizations as (id, name)."""
        rows = visible(Organization.objects.all(), user_of(request))[:MOST_CHOICES]
        choices = [(str(row.pk), str(row)) for row in rows]
        return choices if len(choices) > 1 else []

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to those of the organization."""
        chosen = _uuid(self.value() or "")
        return queryset.filter(organization_id=chosen) if chosen else queryset


class ReasonFilter(TextFilter):
    """By a part of the error's code, which says why a request was refused or failed."""

    title = "error code"
    parameter_name = "code"

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to the codes that contain the text."""
        value = self.value()
        return queryset.filter(error_code__icontains=value) if value else queryset


class WordsFilter(TextFilter):
    """By words of the prompt or the response, redacted as they are kept, for who may read them."""

    title = "words of prompt or response"
    parameter_name = "words"

    def has_output(self) -> bool:
        """Whether it is offered: to who may read the texts."""
        return bool(self.request.user.has_perm("audit.view_requesttext"))

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to requests whose texts contain the words; days chosen beside them keep that quick."""
        value = self.value()
        if not value:
            return queryset
        texts = visible(RequestText.objects.filter(pk=OuterRef("pk")), user_of(request))
        said = Q(prompt_redacted__icontains=value) | Q(response_redacted__icontains=value)
        return queryset.filter(Exists(texts.filter(said)))


class ObjectTypeFilter(DropdownFilter):
    """By what was changed."""

    title = "object"
    parameter_name = "changed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the kinds of objects that people change."""
        return [(label, _type_name(label)) for label in [*PATHS, "policies.price"] if not label.startswith("audit.")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to changes of that kind of object."""
        return queryset.filter(object_type=self.value()) if self.value() else queryset


class DoorFilter(DropdownFilter):
    """By the door through which the change came."""

    title = "door"
    parameter_name = "door"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the doors."""
        return [("admin", "Admin"), ("api", "API"), ("command", "Command")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows to changes through that door."""
        return queryset.filter(via=self.value()) if self.value() else queryset


@admin.register(RequestRecord)
class RequestRecordAdmin(ScopedAdmin):
    """One record for each request."""

    when_empty = "Each request leaves one, whatever became of it. Send a first one from the playground, or with a key."
    list_display = [
        "moment",
        "application",
        "asked_for",
        "outcome",
        "error_code",
        "tokens",
        "cost",
        "latency",
        "organization_name",
    ]
    list_filter = [
        "status",
        ReasonFilter,
        ModelFilter,
        ProviderFilter,
        ApplicationFilter,
        OrganizationFilter,
        WordsFilter,
        ("timestamp", DayFilter),
        *EXACT,
    ]
    # Searched by `get_search_results`; the box is shown because this is not empty.
    search_fields = ["id"]
    search_help_text = "Request id, application, person, key, end user, model, error or metadata"
    sortable_by = ()

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns: the organization's only where there could be several."""
        columns = super().get_list_display(request)
        return columns if _sees_several(user_of(request)) else [name for name in columns if name != "organization_name"]

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        """Find a request by its id, or requests by words in their names and metadata."""
        term = search_term.strip()
        if not term:
            return queryset, False
        request_id = _uuid(term)
        if request_id:
            return queryset.filter(pk=request_id), False
        words = Q(api_key_prefix=_key_prefix(term))
        for column in ("application_name", "user_name", "end_user", "model", "error_code", "metadata_text"):
            words |= Q(**{f"{column}__icontains": term})
        return queryset.alias(metadata_text=Cast("metadata", models.TextField())).filter(words), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show what happened and why."""
        record = self.row_for(request, object_id, Action.VIEW)
        texts = visible(RequestText.objects.filter(pk=record.pk), user_of(request))
        return self.page(
            request,
            "control_plane/request_record.html",
            "What happened and why",
            record,
            record=record,
            why=why(record, user_of(request)),
            most_us=max(1, record.latency_ms * 1000),
            colour=STATUS_COLOURS[record.status],
            links=_links(record, user_of(request)),
            policies=_policies_within_reach(record, user_of(request)),
            text=texts.first(),
            may_see_text=request.user.has_perm("audit.view_requesttext"),
        )

    @admin.display(description="Time (UTC)")
    def moment(self, record: RequestRecord) -> str:
        """Return when the request came in."""
        return f"{record.timestamp:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="Application")
    def application(self, record: RequestRecord) -> str:
        """Return who asked."""
        return record.application_name or record.user_name or "-"

    @admin.display(description="Model")
    def asked_for(self, record: RequestRecord) -> str:
        """Return the model as it was asked for."""
        return format_html('<span class="cp-model">{}</span>', record.model or "-")

    @badge("Outcome", STATUS_COLOURS)
    def outcome(self, record: RequestRecord) -> str:
        """Return how it ended."""
        return record.status

    @admin.display(description="Tokens in / out")
    def tokens(self, record: RequestRecord) -> str:
        """Return how many tokens were used."""
        return f"{record.tokens_input:,} / {record.tokens_output:,}"

    @admin.display(description="Cost, USD")
    def cost(self, record: RequestRecord) -> str:
        """Return what it cost."""
        return record.cost_usd

    @admin.display(description="Latency")
    def latency(self, record: RequestRecord) -> str:
        """Return how long it took."""
        return f"{record.latency_ms:,} ms"


@admin.register(ChangeRecord)
class ChangeRecordAdmin(ScopedAdmin):
    """One record for each change to the configuration."""

    when_empty = "Each change to the configuration leaves one."
    list_display = ["moment", "actor_name", "action", "changed", "object_name", "via", "address"]
    list_filter = [ObjectTypeFilter, DoorFilter, OrganizationFilter, ("timestamp", DayFilter)]
    search_fields = ["actor_name", "actor_id", "object_name", "object_id", "reason"]
    search_help_text = "Who, what, or the id of a person or an object"
    sortable_by = ()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a change, before and after side by side."""
        record = self.row_for(request, object_id, Action.VIEW)
        kind = _type_name(record.object_type)
        return self.page(
            request,
            "control_plane/object_history.html",
            f"{record.action.capitalize()} {kind}",
            record,
            changes=[(record, differences(record))],
            kind=kind,
            link=_object_link(record, user_of(request)),
            # The way to this page ends at the list: the record has no name that says more than its first line.
            original=str(record.pk),
        )

    @admin.display(description="Time (UTC)")
    def moment(self, record: ChangeRecord) -> str:
        """Return when the change was made."""
        return f"{record.timestamp:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="Object")
    def changed(self, record: ChangeRecord) -> str:
        """Return what kind of object was changed."""
        return _type_name(record.object_type)


def _sees_several(user: User) -> bool:
    return user.is_superuser or len(user.roles()) > 1


def _key_prefix(term: str) -> str:
    """Return the public prefix of a key as it is shown or as it is used; ``-``, which none has, of anything else."""
    return term.split("_")[1] if term.startswith("lcp_") else "-"


def _links(record: RequestRecord, user: User) -> dict[str, str]:
    """Return the addresses of whom a record names, as far as they still exist and the person may open them."""
    named = {"application": (Application, record.application_id), "key": (ApiKey, record.api_key_id)}
    named |= {"user": (User, record.user_id), "organization": (Organization, record.organization_id)}
    found = {name: _page_of(model._meta.label_lower, pk, user) for name, (model, pk) in named.items()}
    found["effective"] = _effective(record, found)
    return {name: link for name, link in found.items() if link}


def _effective(record: RequestRecord, found: dict[str, str]) -> str:
    """Return the address of the policies that hold now for who made the request, as far as they can be opened."""
    subjects = {"key": record.api_key_id, "application": record.application_id, "user": record.user_id}
    subject = next((name for name in subjects if found[name]), None)
    if subject is None:
        return ""
    page = reverse("admin:policies_policy_explain", args=[subject, subjects[subject]])
    return f"{page}?{urlencode({'organization': record.organization_id})}"


def _page_of(label: str, pk: Any, user: User) -> str:
    """Return the address of a row's page, or nothing if the row is gone or out of reach."""
    rows: QuerySet[models.Model] = QuerySet(apps.get_model(label))
    if pk is None or not visible(rows, user).filter(pk=pk).exists():
        return ""
    return reverse(f"admin:{label.replace('.', '_')}_change", args=[pk])


def _policies_within_reach(record: RequestRecord, user: User) -> set[str]:
    """Return the ids of those policies of a record that can be opened."""
    entries = [entry for entry in [*record.policies, *record.reasons] if isinstance(entry, dict)]
    ids = {_uuid(str(entry.get("id") or entry.get("policy_id"))) for entry in entries} - {None}
    rows: QuerySet[models.Model] = QuerySet(apps.get_model("policies.policy"))
    return {str(pk) for pk in visible(rows, user).filter(pk__in=ids).values_list("pk", flat=True)}


def _object_link(record: ChangeRecord, user: User) -> str:
    """Return the address of what a change record is about, or nothing if it is gone, out of reach or has no page."""
    try:
        has_page = admin.site.is_registered(apps.get_model(record.object_type))
    except LookupError:
        return ""
    return _page_of(record.object_type, _uuid(record.object_id), user) if has_page else ""


def _midnight(day: Any) -> datetime | None:
    try:
        parsed = parse_date(day) if isinstance(day, str) else None
    except ValueError:
        return None
    # An id has no time before 1970, and the day after the last one must exist.
    return datetime.combine(parsed, time.min, UTC) if parsed and 1970 <= parsed.year < 9999 else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _type_name(label: str) -> str:
    try:
        return str(apps.get_model(label)._meta.verbose_name)
    except LookupError:
        return label
