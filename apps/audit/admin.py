"""The admin pages of what happened: the records of requests and of changes, to read and to search."""

from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.html import format_html

from apps.audit.admin_forms import ExportForm, SavedSearchForm, SearchForm, address_of, given_by, in_names
from apps.audit.changes import state_of
from apps.audit.exports import orders
from apps.audit.exports.attachment import as_attachment
from apps.audit.exports.work import try_at_once
from apps.audit.finding import Found, Reach, TooSlow, find
from apps.audit.models import ChangeRecord, Export, RequestRecord, RequestText, SavedSearch
from apps.audit.moments import moment
from apps.audit.search import CRITERIA, METADATA, SEARCHED, SearchRefused, in_words, read_search
from apps.audit.uuid7 import first_id_at, moment_of
from apps.audit.values import uuid_or_none
from apps.gateway.exporter import PRODUCERS
from apps.gateway.why import why
from apps.orgs.models import ApiKey, Application, Organization, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import MOST_CHOICES, ScopedAdmin, actor_of, badge, differences, user_of
from apps.orgs.scoping import PATHS, may, reach, visible

if TYPE_CHECKING:
    from django.contrib.admin import FieldListFilter as RangeDateFilter
    from django.contrib.admin import SimpleListFilter as DropdownFilter
else:
    from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter

MOST_SHOWN, MOST_SAVED = 50, 20
TOO_SLOW = "This search takes too long. Choose a shorter period, or a model or an application besides."
EXPORT_COLOURS = {
    "waiting": "info",
    "running": "info",
    "done": "success",
    "failed": "danger",
    "cancelled": "warning",
    "expired": "default",
}
_FILTERS = {
    "status__exact": "status",
    "id__exact": "request_id",
    "served_by": "provider",
    "model_name": "model",
    "code": "error_code",
    "timestamp_from": "since",
    "timestamp_to": "until",
}
"""What plain lists of the admin call their filters, as links of other pages may have it."""
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
        chosen = uuid_or_none(self.value() or "")
        return queryset.filter(organization_id=chosen) if chosen else queryset


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
    """One record for each request, found by the one search."""

    when_empty = "Each request leaves one, whatever became of it. Send a first one from the playground, or with a key."
    searched_by: ClassVar[tuple[str, ...]] = (*CRITERIA, "metadata")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the search and what it finds, the newest first, and where it goes on; nothing is counted."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        pairs = request.GET.dict()
        before = uuid_or_none(pairs.pop("before", ""))
        if elsewhere := _known_names(pairs):
            return HttpResponseRedirect(f"{request.path}?{urlencode(elsewhere)}")
        strange = [name for name in pairs if name not in self.searched_by and not name.startswith(METADATA)]
        if strange or any("\0" in name + text for name, text in pairs.items()):
            messages.warning(request, "The address had a filter that there is not; it was left out.")
            kept = {name: text for name, text in pairs.items() if name not in strange and "\0" not in text}
            return HttpResponseRedirect(f"{request.path}?{urlencode(kept)}")
        return self._search(request, SearchForm(user_of(request), pairs), before)

    def _search(self, request: HttpRequest, form: SearchForm, before: UUID | None) -> HttpResponse:
        person, found = user_of(request), Found([], None)
        if form.is_valid() and form.search is not None:
            try:
                found = find(form.search, Reach(reach(person, *SEARCHED)), MOST_SHOWN, before)
            except TooSlow:
                form.add_error(None, TOO_SLOW)
        query = address_of(form.given)
        context = {
            **self.admin_site.each_context(request),
            "title": "Requests",
            "opts": self.opts,
            "form": form,
            "is_search": bool(form.given),
            "rows": [(record, STATUS_COLOURS[record.status]) for record in found.records],
            "found": found,
            "looked_back_to": moment_of(found.next) if found.is_cut_short and found.next else None,
            "older": urlencode({**form.given, "before": str(found.next)}) if found.next else "",
            "newest": query if before else None,
            "sees_several": _sees_several(person),
            "saved": [
                {"name": one.name, "address": address_of(one.criteria)} for one in saved_searches(person)[:MOST_SAVED]
            ],
            "query": query,
            "may_save": person.has_perm("audit.add_savedsearch"),
            "may_export": person.has_perm("audit.add_export") and form.is_valid(),
        }
        return TemplateResponse(request, "control_plane/search.html", context)

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
            colour=STATUS_COLOURS[record.status],
            links=_links(record, user_of(request)),
            policies=_policies_within_reach(record, user_of(request)),
            text=texts.first(),
            may_see_text=request.user.has_perm("audit.view_requesttext"),
        )


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

    @admin.display(description="Time")
    def moment(self, record: ChangeRecord) -> str:
        """Return when the change was made."""
        return moment(record.timestamp)

    @admin.display(description="Object")
    def changed(self, record: ChangeRecord) -> str:
        """Return what kind of object was changed."""
        return _type_name(record.object_type)


def saved_searches(person: User) -> "QuerySet[SavedSearch]":
    """Return a person's own searches and those that are shared with them."""
    return visible(SavedSearch.objects.filter(Q(is_shared=True) | Q(owner_id=person.pk)), person)


@admin.register(SavedSearch)
class SavedSearchAdmin(ScopedAdmin):
    """Searches under a name."""

    form = SavedSearchForm
    fields = ["name", "is_shared", "query"]
    change_form_before_template = "control_plane/search_in_words.html"
    list_display = ["name", "asks_for", "is_shared", "owner_name", "open"]
    search_fields = ["name", "owner_name"]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[SavedSearch]":
        """Return the person's own searches and those that are shared with them; to a superadmin all."""
        person = user_of(request)
        return super().get_queryset(request) if person.is_superuser else saved_searches(person)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the search that the address names."""
        return {"query": address_of(given_by(request.GET.dict()))}

    @admin.display(description="Asks for")
    def asks_for(self, saved: SavedSearch) -> str:
        """Return what it searches for, for people."""
        return said_of(saved.criteria)

    @admin.display(description="")
    def open(self, saved: SavedSearch) -> str:
        """Return the way to what it finds."""
        url = f"{reverse('admin:audit_requestrecord_changelist')}?{address_of(saved.criteria)}"
        return format_html('<a class="cp-link" href="{}">Search</a>', url)


@admin.register(Export)
class ExportAdmin(ScopedAdmin):
    """Records as files: ordered here, written by a worker, downloaded until they expire."""

    form = ExportForm
    fields = ["kind", "format", "reason", "query"]
    conditional_fields = {"format": "kind == 'records'"}
    change_form_before_template = "control_plane/search_in_words.html"
    list_display = ["created_at", "kind", "outcome", "records", "owner_name", "asks_for", "expires_at"]
    list_filter = ["state", "kind", OrganizationFilter]
    search_fields = ["owner_name", "reason", "id"]
    sortable_by = ()

    def get_urls(self) -> list[Any]:
        """Return the addresses, those of cancelling and of downloading among them."""
        own = [
            path("<path:object_id>/cancel/", self.admin_site.admin_view(self.cancel), name="audit_export_cancel"),
            path("<path:object_id>/download/", self.admin_site.admin_view(self.download), name="audit_export_download"),
        ]
        return [*own, *super().get_urls()]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the search that the address names, and what is to be written of it."""
        pairs = request.GET.dict()
        kind = pairs.pop("kind", "")
        chosen = {"kind": kind} if kind in Export.Kind.values else {}
        return {"query": address_of(given_by(pairs)), **chosen}

    def save_model(self, request: HttpRequest, obj: Export, form: Any, change: bool) -> None:
        """Order the export, with its record; a small one is written before the answer."""
        actor = actor_of(request)
        obj.owner_id, obj.owner_name = user_of(request).pk, actor.name[:200]
        obj.via, obj.address, obj.created_at = actor.via, actor.address, timezone.now()
        obj.criteria = orders.criteria_of(form.search, obj.organization_id)
        self.refuse_out_of_reach(request, obj, None, Action.ADD)
        obj.save()
        self.record(request, "create", obj, after=state_of(obj), reason=obj.reason)
        transaction.on_commit(partial(try_at_once, obj, PRODUCERS), robust=True)

    def response_add(self, request: HttpRequest, obj: Export, post_url_continue: str | None = None) -> HttpResponse:
        """Go to the export's page."""
        return self.back_to(obj)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show how far an export is, or its file."""
        export = self.row_for(request, object_id, Action.VIEW)
        return self.page(
            request,
            "control_plane/export.html",
            str(export),
            export,
            export=export,
            colour=EXPORT_COLOURS[export.state],
            criteria=asked_for(export.criteria, user_of(request)),
            may_act=self.has_add_permission(request),
            is_there=orders.is_there(export),
        )

    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Cancel an export that is under way."""
        export = self._to_act_on(request, object_id)
        if request.method == "POST" and not orders.cancel(export, actor_of(request)):
            messages.info(request, "It was over before it could be cancelled.")
        return self.back_to(export)

    def download(self, request: HttpRequest, object_id: str) -> Any:
        """Send the file, once the download is recorded."""
        export = self._to_act_on(request, object_id)
        if request.method != "POST":
            return self.back_to(export)
        try:
            return as_attachment(export, orders.download(export, actor_of(request)))
        except FileNotFoundError:
            messages.error(request, "The file is not there any more. Order the export again.")
            return self.back_to(export)

    def _to_act_on(self, request: HttpRequest, object_id: str) -> Export:
        export: Export = self.row_for(request, object_id, Action.VIEW)
        if not self.has_add_permission(request) or not may(
            user_of(request), Action.ADD, self.opts.label_lower, export.organization_id
        ):
            raise PermissionDenied
        return export

    @badge("State", EXPORT_COLOURS)
    def outcome(self, export: Export) -> str:
        """Return how far it is."""
        return export.state

    @admin.display(description="Asks for")
    def asks_for(self, export: Export) -> str:
        """Return what it searches for, for people."""
        return said_of(export.criteria)


def asked_for(criteria: Any, person: User | None = None) -> list[tuple[str, str]]:
    """Return what a stored search asks for as (label, text), also of one that an older version stored.

    With the names that ``person`` may see, or with ids.
    """
    try:
        return in_names(person, criteria) if person else in_words(read_search(criteria))
    except (SearchRefused, AttributeError):
        return [("Search", "cannot be understood any more")]


def said_of(criteria: Any) -> str:
    """Return what a stored search asks for, in a line."""
    return "; ".join(f"{label}: {text}" for label, text in asked_for(criteria)) or "Everything"


def _known_names(pairs: dict[str, str]) -> dict[str, str]:
    """Return an address that another page made with the names of plain filters, in the names of the search."""
    if not any(name in pairs for name in _FILTERS):
        return {}
    renamed = {_FILTERS.get(name, name): text for name, text in pairs.items()}
    if last := _midnight(pairs.get("timestamp_to")):
        renamed["until"] = (last + timedelta(days=1)).date().isoformat()
    return renamed


def _sees_several(user: User) -> bool:
    return user.is_superuser or len(user.roles()) > 1


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
    ids = {uuid_or_none(str(entry.get("id") or entry.get("policy_id"))) for entry in entries} - {None}
    rows: QuerySet[models.Model] = QuerySet(apps.get_model("policies.policy"))
    return {str(pk) for pk in visible(rows, user).filter(pk__in=ids).values_list("pk", flat=True)}


def _object_link(record: ChangeRecord, user: User) -> str:
    """Return the address of what a change record is about, or nothing if it is gone, out of reach or has no page."""
    try:
        has_page = admin.site.is_registered(apps.get_model(record.object_type))
    except LookupError:
        return ""
    return _page_of(record.object_type, uuid_or_none(record.object_id), user) if has_page else ""


def _midnight(day: Any) -> datetime | None:
    try:
        parsed = parse_date(day) if isinstance(day, str) else None
    except ValueError:
        return None
    # An id has no time before 1970, and the day after the last one must exist.
    return datetime.combine(parsed, time.min, UTC) if parsed and 1970 <= parsed.year < 9999 else None


def _type_name(label: str) -> str:
    try:
        return str(apps.get_model(label)._meta.verbose_name)
    except LookupError:
        return label
