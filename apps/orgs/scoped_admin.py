"""The one base of every page in the admin: it reaches only what a person's roles reach, and records each change.

Rows, permissions, foreign keys (offered and submitted), filters, inlines, autocompletion, prefilled fields, histories
and deletions all go through `apps.orgs.scoping`. A system check refuses a page that is not built on these classes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import NestedObjects, quote, unquote
from django.contrib.admin.widgets import AutocompleteSelect, RelatedFieldWidgetWrapper
from django.core.exceptions import NON_FIELD_ERRORS, FieldDoesNotExist, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property

from apps.audit import fence
from apps.audit.changes import Actor, record_change, stamp_of, state_of
from apps.audit.models import ChangeRecord
from apps.audit.moments import moment
from apps.orgs.models import Organization, User
from apps.orgs.naming import HIDES, hides_something
from apps.orgs.roles import Action
from apps.orgs.scoping import PATHS, SHARED, may, organizations_of, visible

if TYPE_CHECKING:
    from uuid import UUID

    from django.contrib.admin.options import BaseModelAdmin

    # The theme carries no types; its classes are Django's with more attributes.
    _Base = BaseModelAdmin[Any]
    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
    _RelatedFilter = admin.RelatedFieldListFilter
    ActionVariant: Any
    _ModelForm = forms.ModelForm[Any]
    _Paginator = Paginator[Any]
else:
    from unfold.admin import ModelAdmin as _ModelAdmin
    from unfold.admin import TabularInline as _TabularInline
    from unfold.contrib.filters.admin import RelatedDropdownFilter as _RelatedFilter
    from unfold.enums import ActionVariant

    _Base = object
    _ModelForm = forms.ModelForm
    _Paginator = Paginator

MOST_COUNTED = 10_000
"""Rows that a list counts and pages through; beyond it a person narrows the search."""
MOST_CHOICES = 500
MOST_HISTORY = 200
STAMP = "as_opened"
"""The hidden field of a form that says what its row was when the form was opened."""


def asks_with_nul(request: HttpRequest) -> bool:
    """Whether an address has a NUL in one of its values, which no database takes in a text."""
    return any("\0" in value for _, values in request.GET.lists() for value in values)


def user_of(request: HttpRequest) -> User:
    """Return who is logged in. Raises `PermissionDenied` for nobody."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def actor_of(request: HttpRequest) -> Actor:
    """Return who a change record names."""
    user = user_of(request)
    return Actor(user.pk, user.username, "admin", _address(request))


def _address(request: HttpRequest) -> str | None:
    # The connection's own address: a forwarded one could be written by anybody.
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return None


def organization_of(row: models.Model) -> "UUID | None":
    """Return the id of the organization that a row belongs to; ``None``: the platform."""
    return row.pk if isinstance(row, Organization) else getattr(row, "organization_id", None)


def differences(record: ChangeRecord) -> list[tuple[str, str | None, str | None]]:
    """Return what a change record says as (field, before, after), ``None`` where a side says nothing."""
    names = sorted(record.before.keys() | record.after.keys())
    return [(name, _written(record.before.get(name)), _written(record.after.get(name))) for name in names]


def _written(value: Any) -> str | None:
    """Return a value of a change record as people read it: texts as they are, all else as the API writes it."""
    return value if value is None or isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


F = TypeVar("F", bound=Callable[..., Any])


def detail_action(description: str, *, permission: str, icon: str) -> Callable[[F], F]:
    """Make a method the button ``description`` on a row's page, shown to whom ``has_<permission>_permission`` lets.

    The attributes are those that the theme reads from its own decorator, which carries no types.
    """

    def mark(function: F) -> F:
        function.__dict__.update(
            short_description=description,
            allowed_permissions=[permission],
            icon=icon,
            variant=ActionVariant.DEFAULT,
            attrs={},
            original_function_name=function.__name__,
        )
        return function

    return mark


def badge(description: str, colours: dict[str, str]) -> Callable[[F], F]:
    """Make a method a column of coloured labels: its value chooses success, warning, danger or info."""

    def mark(function: F) -> F:
        function.__dict__.update(short_description=description, label=colours)
        return function

    return mark


@cache
def _moment_column(column: "models.DateTimeField[Any, Any]") -> Callable[[models.Model], str | None]:
    """Return a list's column that shows a time so that browsers tell it in the reader's zone; one for each field."""

    def shown(row: models.Model) -> str | None:
        when = column.value_from_object(row)
        return moment(when) if when else None

    shown.__name__ = column.name  # names the column's class in the page, as a field's does
    shown.__dict__.update(short_description=column.verbose_name, admin_order_field=column.name)
    return shown


@dataclass(frozen=True, slots=True)
class Question:
    """What a page asks before something is done."""

    title: str
    text: str
    button: str
    form: forms.Form | None = None
    consequences: Sequence[str] = ()
    """What ends, with numbers."""
    ends: bool = False
    """Whether something ends that somebody may rely on: the button says so by its colour."""


class BoundedPaginator(_Paginator):
    """Counts no further than `MOST_COUNTED` rows, so that a list of a huge table opens at once."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, `MOST_COUNTED` at most."""
        return cast("models.QuerySet[Any]", self.object_list)[:MOST_COUNTED].count()


class ScopedRelatedFilter(_RelatedFilter):
    """A filter by a related object, which offers only those that the person may see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: "admin.ModelAdmin[Any]") -> Any:
        """Return the choices as (id, name)."""
        everything: models.QuerySet[Any] = models.QuerySet(field.remote_field.model)
        rows = visible(everything, user_of(request))
        return [(str(row.pk), str(row)) for row in rows[:MOST_CHOICES]]


STALE = (
    "This was changed by somebody else, or in another tab, after you opened it. Nothing is saved yet. Look at its "
    "history or open it anew to see the change; saving this form again overwrites it."
)


class ScopedForm(_ModelForm):
    """A form whose uniqueness rules hold within the organization even where the organization is not a field of it."""

    person: ClassVar[User]
    """Who fills it in, set on the class that `ScopedAdmin.get_form` makes for each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_new = self.instance._state.adding  # noqa: SLF001  # documented as public, whatever its name
        self.stamp = "" if is_new else stamp_of(self.instance)

    def clean(self) -> dict[str, Any]:
        """Refuse names that hide something, and to undo unseen what somebody else has changed meanwhile."""
        data = super().clean() or self.cleaned_data
        for name in self.changed_data:
            if self._is_line(name) and hides_something(data.get(name) or ""):
                self.add_error(name, HIDES)
        opened = self.data.get(self.add_prefix(STAMP))
        if opened and opened != self.stamp:
            self.add_error(None, STALE)
        return data

    def _is_line(self, name: str) -> bool:
        field = self.fields[name]
        return isinstance(field, forms.CharField) and not isinstance(field.widget, forms.Textarea)

    def _get_validation_exclusions(self) -> set[str]:
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # not in the stubs
        return exclusions - {"organization"}

    def _post_clean(self) -> None:
        # What the fields have refused is missing from the row, and the model's own check may rely on it.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]  # not in the stubs

    def _update_errors(self, errors: ValidationError) -> None:
        """Show what the model says of a column that is no field of this form above the form."""
        found: dict[str, Any] = getattr(errors, "error_dict", {})
        for name in [name for name in found if name not in self.fields and name != NON_FIELD_ERRORS]:
            found.setdefault(NON_FIELD_ERRORS, []).extend(found.pop(name))
        super()._update_errors(errors)  # type: ignore[misc]  # not in the stubs


class ChoiceByTyping(AutocompleteSelect):
    """A choice by typing. What can be no id is shown as no choice, for the field to refuse."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        """Return the chosen options."""
        return super().optgroups(name, [one for one in value if self._may_be_an_id(one)], attr)

    def _may_be_an_id(self, text: Any) -> bool:
        try:
            self.field.target_field.to_python(text or None)
        except ValidationError:
            return False
        return True


class _Scoped(_Base):
    """What pages and inlines have in common."""

    def allowed(self, request: HttpRequest, action: Action, row: models.Model | None = None) -> bool:
        """Whether the person may do ``action`` to ``row``, or without it to some row; never what the model excludes."""
        if action.value not in self.opts.default_permissions:
            return False
        return request.user.has_perm(f"{self.opts.app_label}.{action}_{self.opts.model_name}", row)

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        """Return the rows that the person may see."""
        return visible(super().get_queryset(request), user_of(request))

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Return a field without the pop-up links, which would lead away from a half-filled form."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest | None, **kwargs: Any) -> Any:
        """Return a field that offers and accepts only rows within the person's reach."""
        assert request is not None
        if db_field.remote_field.model is Organization:
            return self._organization_field(db_field, request, **kwargs)
        kwargs.setdefault("queryset", self._related(db_field, user_of(request)))
        return self._field(db_field, request, **kwargs)

    def _field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs.setdefault("widget", ChoiceByTyping(db_field, self.admin_site))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def _related(self, db_field: Any, user: User) -> "models.QuerySet[Any]":
        """Return the rows that a field may name: those of organizations where the person may write this model."""
        everything: models.QuerySet[Any] = models.QuerySet(db_field.remote_field.model)
        rows, path = visible(everything, user), PATHS.get(everything.model._meta.label_lower)
        if user.is_superuser or path is None:
            return rows
        label = self.opts.label_lower
        own = organizations_of(user, Action.ADD, label) | organizations_of(user, Action.CHANGE, label)
        return rows.filter(**{f"{path}__in": own}).distinct()

    def _organization_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        user = user_of(request)
        if user.is_superuser:
            return self._field(db_field, request, **kwargs)
        own = organizations_of(user, Action.ADD, self.opts.label_lower)
        kwargs["queryset"] = Organization.objects.filter(pk__in=own)
        if len(own) == 1:
            # The one organization goes without saying; it is still checked against the queryset when submitted.
            kwargs |= {"widget": forms.HiddenInput(), "initial": next(iter(own))}
        kwargs["required"] = True
        return self._field(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest | None, **kwargs: Any) -> Any:
        """Return a field that offers and accepts only rows within the person's reach."""
        assert request is not None
        kwargs.setdefault("queryset", self._related(db_field, user_of(request)))
        return super().formfield_for_manytomany(db_field, request, **kwargs)


class ScopedInline(_Scoped, _TabularInline):
    """Rows of another model within a page."""

    extra = 0
    form = ScopedForm
    hide_title: ClassVar[bool] = True

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may see such rows."""
        return self.allowed(request, Action.VIEW)

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may add such rows; where, is checked when they are saved."""
        return self.allowed(request, Action.ADD)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may change such rows; which, is checked when they are saved."""
        return self.allowed(request, Action.CHANGE)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may delete such rows; which, is checked when they are."""
        return self.allowed(request, Action.DELETE)


class ScopedAdmin(_Scoped, _ModelAdmin):
    """The pages of one model."""

    form = ScopedForm
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_filter_submit: ClassVar[bool] = True
    compressed_fields: ClassVar[bool] = True
    warn_unsaved_form: ClassVar[bool] = True
    actions_detail: ClassVar[Sequence[str]] = ()
    when_empty: ClassVar[str] = ""
    """What an empty list says: what such a thing is for, or how there comes to be one."""

    # --- Who may

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may see ``obj``, or any."""
        return self.allowed(request, Action.VIEW, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether the person may add one somewhere."""
        return self.allowed(request, Action.ADD)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may change ``obj``, or any."""
        return self.allowed(request, Action.CHANGE, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may delete ``obj``, or any."""
        return self.allowed(request, Action.DELETE, obj)

    def row_for(self, request: HttpRequest, object_id: str, action: Action) -> Any:
        """Return one row to do ``action`` to. Raises `PermissionDenied`, whether it is not theirs or is not there."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not self.allowed(request, action, row):
            raise PermissionDenied
        return row

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the address to filter by the page's own filters alone: no probing of digests or of related rows."""
        name = lookup.split("__", maxsplit=1)[0]
        try:
            self.opts.get_field(name)
        except FieldDoesNotExist:
            return True
        offered = {_filter_name(entry) for entry in self.get_list_filter(request)} | {self.opts.pk.name}
        return name in offered and super().lookup_allowed(lookup, value, request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form's class, made for this one request, which knows the person."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.person = user_of(request)
        return form

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, times as their reader's own."""
        return [self._column(name) for name in super().get_list_display(request)]

    def _column(self, name: Any) -> Any:
        column = self.opts.get_field(name) if isinstance(name, str) and self._has_field(name) else None
        return _moment_column(column) if isinstance(column, models.DateTimeField) else name

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Return the filters, those by a related object narrowed to what the person may see."""
        return [
            (entry, ScopedRelatedFilter) if isinstance(entry, str) and self._is_relation(entry) else entry
            for entry in super().get_list_filter(request)
        ]

    def _is_relation(self, name: str) -> bool:
        return bool(self.opts.get_field(name).is_relation)

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """Return the fields that are shown only: the organization, once a row belongs to one, among them."""
        fixed = [name for name in ("organization",) if obj is not None and self._has_field(name)]
        return [*super().get_readonly_fields(request, obj), *fixed]

    def _has_field(self, name: str) -> bool:
        return any(field.name == name for field in self.opts.get_fields())

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a row within the person's reach, or ``None``; while a form is saved, as nobody else can change it."""
        row = super().get_object(request, object_id, from_field)
        if row is None or request.method != "POST" or not connection.in_atomic_block:
            return row
        if Action.CHANGE.value not in self.opts.default_permissions:
            return row  # nobody changes it here, and the server's role may not even lock it
        everything: models.QuerySet[models.Model] = models.QuerySet(self.model)
        everything.select_for_update(no_key=True).filter(pk=row.pk).first()
        return super().get_object(request, object_id, from_field)

    # --- Changes and their records

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store what the form says, with its record."""
        self.store(request, obj, Action.CHANGE if change else Action.ADD, hidden=self.secrets_set(form))

    def secrets_set(self, form: Any) -> tuple[str, ...]:
        """Return the columns of secrets that a form sets anew, which the record must show as changed."""
        return ()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Store what an inline says, each row with its record."""
        formset.save(commit=False)
        for row in formset.deleted_objects:
            self.remove(request, row)
        for row, _ in formset.changed_objects:
            self.store(request, row, Action.CHANGE)
        for row in formset.new_objects:
            self.store(request, row, Action.ADD)

    def store(
        self,
        request: HttpRequest,
        row: models.Model,
        action: Action,
        *,
        hidden: tuple[str, ...] = (),
        reason: str = "",
    ) -> None:
        """Save a row and its record; a row that is as it was stays alone.

        ``hidden`` are the columns of secrets that were set anew, ``reason`` is why the person says they do it.
        Raises `PermissionDenied` for a row that is or would be out of reach.
        """
        stored: models.QuerySet[models.Model] = models.QuerySet(type(row)).filter(pk=row.pk)
        before = stored.first() if action is Action.CHANGE else None
        self.refuse_out_of_reach(request, row, before, action)
        if before is not None and state_of(before) == state_of(row) and not hidden:
            return
        reason = " ".join(filter(None, [reason, self.consequence(before, row) if before else ""]))
        row.save()
        after = state_of(row) | (dict.fromkeys(hidden, "(set anew)") if before else {})
        self.record(
            request,
            "change" if before else "create",
            row,
            before=state_of(before) if before else None,
            after=after,
            reason=reason,
        )

    def consequence(self, before: models.Model, after: models.Model | None) -> str:
        """Return what the record of a change, or with ``None`` of a deletion, has to say beyond the columns."""
        return ""

    def refuse_out_of_reach(
        self, request: HttpRequest, row: models.Model, before: models.Model | None, action: Action
    ) -> None:
        """Raise `PermissionDenied` unless the person may do ``action`` where the row is, and it stays there."""
        user, organization_id = user_of(request), organization_of(row)
        if before is not None and organization_of(before) != organization_id:
            raise PermissionDenied("A row stays with its organization.")
        if user.is_superuser:
            return
        if organization_id is None or not may(user, action, row._meta.label_lower, organization_id):
            raise PermissionDenied

    def record(
        self,
        request: HttpRequest,
        action: str,
        row: models.Model,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        reason: str = "",
    ) -> None:
        """Append the record of a change."""
        record_change(
            actor_of(request),
            action,
            row,
            organization_id=organization_of(row),
            before=before,
            after=after,
            reason=reason,
        )

    def remove(self, request: HttpRequest, row: models.Model) -> None:
        """Delete a row and what belongs to it, each with its record."""
        if not request.user.has_perm(f"{row._meta.app_label}.delete_{row._meta.model_name}", row):
            raise PermissionDenied
        for other in _deleted_with([row]):
            reason = self.consequence(row, None) if other == row else f"Deleted with {row._meta.verbose_name} {row}."
            self.record(request, "delete", other, before=state_of(other), reason=reason)
        row.delete()

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        """Delete one row, with records."""
        with transaction.atomic():
            self.remove(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[Any]") -> None:
        """Delete the chosen rows, with records."""
        with transaction.atomic():
            for row in queryset:
                self.remove(request, row)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Return what a deletion takes along; if some of that is out of reach, only that it is."""
        if self._out_of_reach(objs, user_of(request)):
            return [], {}, {"objects that are not yours to delete"}, []
        return super().get_deleted_objects(objs, request)

    def _out_of_reach(self, rows: Iterable[models.Model], user: User) -> bool:
        by_model: dict[type[models.Model], set[Any]] = {}
        for row in _deleted_with(rows):
            by_model.setdefault(type(row), set()).add(row.pk)
        return any(
            visible(models.QuerySet(model).filter(pk__in=ids), user, Action.DELETE).count() != len(ids)
            for model, ids in by_model.items()
        )

    # --- Pages

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list; an address with a NUL, which no database takes in a text, leads to the whole list."""
        if asks_with_nul(request):
            return HttpResponseRedirect(request.path)
        return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show the form; its history only to who may see change records."""
        context = {"show_history": request.user.has_perm("audit.view_changerecord"), **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the change records of an object, newest first."""
        row = self.row_for(request, object_id, Action.VIEW)
        if not request.user.has_perm("audit.view_changerecord"):
            raise PermissionDenied
        about = ChangeRecord.objects.filter(object_type=self.opts.label_lower, object_id=str(row.pk))
        records = visible(about, user_of(request))[:MOST_HISTORY]
        return self.page(
            request,
            "control_plane/object_history.html",
            f"History of {row}",
            row,
            changes=[(record, differences(record)) for record in records],
        )

    def page(self, request: HttpRequest, template: str, title: str, row: models.Model, **context: Any) -> HttpResponse:
        """Return a page of our own about one row, in the admin's frame."""
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "title": title,
                "opts": self.opts,
                "original": row,
                "row_url": self.row_url(row),
                **context,
            },
        )

    def ask(self, request: HttpRequest, row: models.Model, question: Question) -> HttpResponse:
        """Return a page that asks for a confirmation and posts it to the same address."""
        return self.page(request, "control_plane/confirm.html", question.title, row, question=question)

    def row_url(self, row: models.Model) -> str:
        """Return the address of a row's page."""
        name = f"{self.admin_site.name}:{row._meta.app_label}_{row._meta.model_name}_change"
        return reverse(name, args=(quote(row.pk),))

    def back_to(self, row: models.Model) -> HttpResponseRedirect:
        """Go back to a row's page."""
        return HttpResponseRedirect(self.row_url(row))

    # --- Django's own log of the admin, which change records replace

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Nothing: `store` has written the record."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Nothing: `store` has written the record."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Nothing: `remove` writes the records."""


class SpendingAdmin(ScopedAdmin):
    """The pages of what spends (organizations, applications, users): each leads to its usage."""

    spends_as: ClassVar[str]
    """What the usage page calls it."""

    def has_usage_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may see records."""
        return may(user_of(request), Action.VIEW, "audit.requestrecord")

    @detail_action("Usage", permission="usage", icon="monitoring")
    def usage(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to what a row has used and spent."""
        row = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(f"{reverse('admin:usage')}?{urlencode({self.spends_as: row.pk})}")


class GovernedAdmin(ScopedAdmin):
    """The pages of what policies govern (applications, users, keys): each leads to the policies that hold for it."""

    governed_as: ClassVar[str]
    """What the page that explains calls it."""

    def has_explain_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may see policies."""
        return may(user_of(request), Action.VIEW, "policies.policy")

    @detail_action("Effective policies", permission="explain", icon="rule")
    def explain(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the policies of a row and what they say of a request."""
        row = self.row_for(request, object_id, Action.VIEW)
        return HttpResponseRedirect(reverse("admin:policies_policy_explain", args=[self.governed_as, row.pk]))


def _filter_name(entry: Any) -> str:
    name = entry[0] if isinstance(entry, tuple | list) else entry
    return name.split("__")[0] if isinstance(name, str) else ""


def _deleted_with(rows: Iterable[models.Model]) -> Iterator[models.Model]:
    """Give every configuration row that deleting ``rows`` deletes, they themselves included."""
    deleted = list(rows)
    if not deleted:
        return
    collector = NestedObjects(using="default", origin=deleted)
    with fence.everything():  # what the person may not see would be deleted, too, and keeps the others from it
        collector.collect(deleted)
    found: Any = collector.model_objs  # sets of rows by their model, whatever the stubs say
    for model, instances in found.items():
        if model._meta.label_lower in PATHS.keys() | SHARED:
            yield from instances
