"""Filters of the list of records that numbers elsewhere lead to: exact, and shown only while they are in use."""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.http import HttpRequest

from apps.audit import rollup_sql
from apps.audit.models import Status
from apps.audit.rollups import ID_SLACK
from apps.audit.usage import EARLIEST, LATEST
from apps.audit.uuid7 import first_id_at

if TYPE_CHECKING:
    from django.contrib.admin import SimpleListFilter as TextFilter
else:
    from unfold.contrib.filters.admin import TextFilter

FAILED = (Status.ERROR, Status.INTERRUPTED)

# A path in SQLite's JSON functions cannot name every key; the keys themselves can be compared.
_SQLITE_LABELLED = "EXISTS (SELECT 1 FROM json_each(audit_requestrecord.metadata) WHERE key = %s AND value = %s)"


def labelled(key: str, value: str) -> Q:
    """Return the condition that a record's metadata has this value."""
    if connection.features.supports_json_field_contains:
        return Q(metadata__contains={key: value})
    return Q(RawSQL(_SQLITE_LABELLED, [key, value], BooleanField()))  # noqa: S611 - both values are bound


class ExactFilter(TextFilter):
    """A filter that is offered while the address has it, to see and to clear. A value that says nothing finds none."""

    def has_output(self) -> bool:
        """Whether it is in use."""
        return bool(self.value())

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Narrow the rows."""
        try:
            return self.narrow(queryset, self.value() or "")
        except (ValueError, OverflowError):
            return queryset.none()

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows that the value means. Raises `ValueError` for one that says nothing."""
        raise NotImplementedError


class SinceFilter(ExactFilter):
    """From a moment on."""

    title, parameter_name = "time, from (UTC)", "since"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows from the moment on."""
        since = _moment(value)
        return rows.filter(timestamp__gte=since, id__gte=first_id_at(max(since - ID_SLACK, EARLIEST)))


class UntilFilter(ExactFilter):
    """Before a moment."""

    title, parameter_name = "time, before (UTC)", "until"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows before the moment."""
        until = _moment(value)
        return rows.filter(timestamp__lt=until, id__lt=first_id_at(min(until + ID_SLACK, LATEST)))


class PersonFilter(ExactFilter):
    """By the id of the person whose key called."""

    title, parameter_name = "user's id", "user"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the person's rows."""
        return rows.filter(user_id=UUID(value))


class ModelIsFilter(ExactFilter):
    """By the model's whole name as it was asked for."""

    title, parameter_name = "exact model", "model_is"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows of the model."""
        return rows.filter(model=value)


class CodeIsFilter(ExactFilter):
    """By the error's whole code."""

    title, parameter_name = "exact error code", "code_is"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows with the code."""
        # The second condition is what the index over errors is limited to.
        return rows.filter(~Q(error_code=""), error_code=value)


class EndedFilter(ExactFilter):
    """By several outcomes that count as one."""

    title, parameter_name = "outcome (failed)", "ended"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows that failed."""
        return rows.filter(status__in=FAILED) if value == "failed" else rows.none()


class RefusedByFilter(ExactFilter):
    """By the id of the policy that refused."""

    title, parameter_name = "policy that refused, id", "refused_by"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows that the policy refused; of ``none``, those that no policy did."""
        statement = rollup_sql.dialect().refused_by.format(r="audit_requestrecord")
        policy = "" if value == "none" else value
        refused = RawSQL(statement, [], TextField())  # noqa: S611  # put together from constants
        blocked: QuerySet[Any] = rows.filter(status=Status.BLOCKED).alias(refused_by=refused)
        return blocked.filter(refused_by=policy)


class TagFilter(ExactFilter):
    """By a value in the metadata, as ``key=value``."""

    title, parameter_name = "metadata, key=value", "tag"

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows with the value."""
        key, sign, tagged = value.partition("=")
        if not sign:
            raise ValueError(value)
        return rows.filter(labelled(key, tagged))


class WithoutFilter(ExactFilter):
    """By what a record does not name."""

    title, parameter_name = "without (application, user, model or provider)", "without"
    _NAMELESS = {
        "application": Q(application_id=None),
        "user": Q(user_id=None),
        "model": Q(model=""),
        "provider": Q(provider=""),
    }

    def narrow(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows that name none."""
        return rows.filter(self._NAMELESS[value]) if value in self._NAMELESS else rows.none()


EXACT = [
    SinceFilter,
    UntilFilter,
    PersonFilter,
    ModelIsFilter,
    CodeIsFilter,
    EndedFilter,
    RefusedByFilter,
    TagFilter,
    WithoutFilter,
]


def _moment(text: str) -> datetime:
    """Read a moment as `isoformat` writes it, with its zone. Raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not EARLIEST <= moment <= LATEST:
        raise ValueError(text)
    return moment
