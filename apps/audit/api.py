"""The JSON API of what happened: request records, change records, and usage in sums. All of it is read-only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, Count, F, Max, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import TruncDate
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit.models import ChangeRecord, RequestRecord, RequestText, Status
from apps.audit.money import usd_from_nano
from apps.audit.uuid7 import first_id_at
from apps.gateway.reevaluation import reevaluate
from apps.gateway.why import why
from apps.orgs.rest.filters import (
    PAGING,
    Filter,
    QueryFilters,
    as_choice,
    as_moment,
    as_text,
    choice,
    query_values,
    read_value,
)
from apps.orgs.rest.views import ApiView, Listing
from apps.orgs.roles import Action
from apps.orgs.scoping import may, visible

METADATA = "metadata."
MAX_GROUPS = 1000
_ID_SLACK = timedelta(days=1)  # between the moment in a record's id and its timestamp
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

# A path in SQLite's JSON functions cannot name every key; the keys themselves can be compared.
_SQLITE_LABELLED = "EXISTS (SELECT 1 FROM json_each(audit_requestrecord.metadata) WHERE key = %s AND value = %s)"

PERIOD = {
    "since": Filter("timestamp__gte", as_moment, "From this moment on (ISO 8601)."),
    "until": Filter("timestamp__lt", as_moment, "Before this moment (ISO 8601)."),
}


class PeriodFilters(QueryFilters):
    """Filters that let the database skip the partitions outside of the period, and filter by metadata."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Apply each filter that the request gives."""
        filters: Mapping[str, Filter] = getattr(view, "filters", {})
        prefix = METADATA if issubclass(queryset.model, RequestRecord) else "\x00"
        for name, text in query_values(request, PAGING | filters.keys(), prefix).items():
            if name.startswith(METADATA):
                key = read_value(name, name.removeprefix(METADATA), as_text)
                queryset = queryset.filter(_labelled(key, read_value(name, text, as_text)))
            elif name in filters:
                value = read_value(name, text, filters[name].read)
                queryset = queryset.filter(_id_bounds(name, value), **{filters[name].lookup: value})
        return queryset

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the filters for OpenAPI."""
        labels = {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Records whose metadata has these values: metadata.<key>=<value>, once for each key.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
        described = super().get_schema_operation_parameters(view)
        return [*described, labels] if getattr(view, "model", None) is RequestRecord else described


def _labelled(key: str, value: str) -> Q:
    if connection.features.supports_json_field_contains:
        return Q(metadata__contains={key: value})
    return Q(RawSQL(_SQLITE_LABELLED, [key, value], BooleanField()))  # noqa: S611 - both values are bound


def _id_bounds(name: str, value: Any) -> Q:
    if name == "since":
        return Q(pk__gte=_id_at(value, -_ID_SLACK))
    return Q(pk__lt=_id_at(value, _ID_SLACK)) if name == "until" else Q()


def _id_at(moment: datetime, slack: timedelta) -> UUID:
    return first_id_at(min(max(moment, _EARLIEST), _LATEST) + slack)


class RecordSerializer(serializers.ModelSerializer[RequestRecord]):
    """One request: who asked for what, what was decided, what it cost. Texts are redacted, null once erased."""

    request_id = serializers.UUIDField(source="id")
    organization = serializers.UUIDField(source="organization_id")
    application = serializers.UUIDField(source="application_id", allow_null=True)
    user = serializers.UUIDField(source="user_id", allow_null=True)
    api_key = serializers.UUIDField(source="api_key_id", allow_null=True)
    model = serializers.CharField(help_text="The one asked for.")
    cost_usd = serializers.CharField(help_text="US dollars, a decimal.")
    overrun_usd = serializers.SerializerMethodField(help_text="What the provider used beyond what it was asked for.")
    prompt_redacted = serializers.SerializerMethodField()
    response_redacted = serializers.SerializerMethodField()

    class Meta:
        model = RequestRecord
        fields = [
            "id",
            "request_id",
            "timestamp",
            "organization",
            "organization_name",
            "application",
            "application_name",
            "user",
            "user_name",
            "api_key",
            "api_key_prefix",
            "end_user",
            "endpoint",
            "model",
            "provider",
            "upstream_model",
            "streamed",
            "status",
            "http_status",
            "error_code",
            "error_message",
            "prompt_redacted",
            "response_redacted",
            "tokens_input",
            "tokens_output",
            "tokens_cached",
            "usage_source",
            "cost_usd",
            "overrun_usd",
            "latency_ms",
            "first_byte_ms",
            "metadata",
            "reasons",
            "policies",
            "findings",
            "limits",
            "attempts",
            "degraded",
        ]

    def get_overrun_usd(self, record: RequestRecord) -> str:
        """Return US dollars."""
        return usd_from_nano(record.overrun_nano_usd)

    def get_prompt_redacted(self, record: RequestRecord) -> str | None:
        """Return the prompt's redacted text."""
        text = self.context["texts"].get(record.pk)
        return text.prompt_redacted if text else None

    def get_response_redacted(self, record: RequestRecord) -> str | None:
        """Return the answer's redacted text."""
        text = self.context["texts"].get(record.pk)
        return text.response_redacted if text else None


class DecisionSerializer(serializers.Serializer[Any]):
    """What the policies said of a request, decided again."""

    same = serializers.BooleanField(help_text="Whether it is what the record says.")
    allowed = serializers.BooleanField(allow_null=True, help_text="Null: refused before the policies were asked.")
    code = serializers.CharField(help_text="The code of the refusal, or nothing.")
    reasons = serializers.ListField(child=serializers.DictField())
    recorded = serializers.ListField(child=serializers.DictField(), help_text="The reasons that the record has.")
    unseen = serializers.ListField(child=serializers.CharField(), help_text="What the record does not show, in words.")


class StageSerializer(serializers.Serializer[Any]):
    """One stage of the path. Times in microseconds since the request came; null where the record does not say."""

    stage = serializers.CharField()
    title = serializers.CharField(help_text="What it decides, in words.")
    outcome = serializers.ChoiceField(choices=["passed", "ended", "not reached"])
    began_us = serializers.IntegerField(allow_null=True)
    took_us = serializers.IntegerField(allow_null=True)
    says = serializers.ListField(child=serializers.CharField())


class VersionAppliedSerializer(serializers.Serializer[Any]):
    """A policy in the version that applied."""

    id = serializers.CharField()
    name = serializers.CharField()
    version = serializers.IntegerField(allow_null=True)
    kind = serializers.CharField()
    mode = serializers.CharField()
    level = serializers.CharField()
    part = serializers.ChoiceField(choices=["refused", "would have refused", "applied"])
    says = serializers.CharField(allow_null=True, help_text="What that version says; null for the platform's.")


class LimitReadSerializer(serializers.Serializer[Any]):
    """A limit that was read, in words."""

    policy = serializers.CharField()
    policy_id = serializers.CharField()
    allows = serializers.CharField()
    left = serializers.CharField()
    asked = serializers.CharField()
    refused = serializers.BooleanField()


class FoundSerializer(serializers.Serializer[Any]):
    """What a guardrail found: a kind, a number and places, never the words."""

    detector = serializers.CharField()
    rule = serializers.CharField()
    count = serializers.IntegerField()
    where = serializers.CharField(help_text="input or output.")
    at = serializers.ListField(child=serializers.CharField(), help_text="Such as messages[2].content; a few of them.")
    action = serializers.CharField()
    policy = serializers.CharField()
    shadow_action = serializers.CharField()
    shadow_policy = serializers.CharField()


class AttemptSerializer(serializers.Serializer[Any]):
    """One call of a provider. Times in milliseconds since the request came."""

    provider = serializers.CharField()
    model = serializers.CharField()
    began_ms = serializers.IntegerField(allow_null=True)
    ended_ms = serializers.IntegerField(allow_null=True)
    status = serializers.IntegerField(allow_null=True)
    fault = serializers.CharField()
    says = serializers.CharField()
    worst_case_usd = serializers.CharField(allow_null=True, help_text="Charged, where it may have been billed.")


class ChargeSerializer(serializers.Serializer[Any]):
    """What the request cost, and by which price."""

    cost_usd = serializers.CharField()
    worst_case_usd = serializers.CharField(allow_null=True, help_text="What was held against budgets; null: nothing.")
    overrun_usd = serializers.CharField()
    tokens_input = serializers.IntegerField()
    tokens_output = serializers.IntegerField()
    tokens_cached = serializers.IntegerField()
    counted_by = serializers.CharField()
    price = serializers.CharField(help_text="In words.")


class StreamSerializer(serializers.Serializer[Any]):
    """How the answer was sent, and what guardrails could do meanwhile."""

    mode = serializers.CharField(help_text="whole, held, relayed, none or unknown.")
    says = serializers.CharField()


class DegradedSerializer(serializers.Serializer[Any]):
    """A part that was not what it should be."""

    part = serializers.CharField()
    says = serializers.CharField()


class WhySerializer(serializers.Serializer[Any]):
    """Why a request ended as it did, and the path that it went."""

    id = serializers.UUIDField()
    sentence = serializers.CharField(help_text="How it ended and why, for people.")
    notes = serializers.ListField(child=serializers.CharField(), help_text="What else is worth knowing.")
    status = serializers.CharField()
    http_status = serializers.IntegerField()
    error_code = serializers.CharField()
    latency_ms = serializers.IntegerField()
    ended_in = serializers.CharField(help_text="The stage that the request left last.")
    stages = StageSerializer(many=True)
    policies = VersionAppliedSerializer(many=True)
    limits = LimitReadSerializer(many=True)
    findings = FoundSerializer(many=True)
    route = serializers.ListField(child=serializers.DictField(), help_text="The targets in order, if several.")
    attempts = AttemptSerializer(many=True)
    cost = ChargeSerializer()
    stream = StreamSerializer()
    degraded = DegradedSerializer(many=True)


@extend_schema(tags=["audit-logs"])
class RecordListing(Listing[RequestRecord]):
    """The audit log of requests."""

    model = RequestRecord
    serializer_class = RecordSerializer
    filter_backends = [PeriodFilters]
    filters = {
        "organization": Filter("organization_id"),
        "application": Filter("application_id"),
        "user": Filter("user_id"),
        "api_key": Filter("api_key_id"),
        "end_user": Filter("end_user", as_text),
        "status": choice("status", *Status.values),
        "model": Filter("model", as_text, "As asked for."),
        "provider": Filter("provider", as_text),
        "error_code": Filter("error_code", as_text),
        "request_id": Filter("pk"),
        **PERIOD,
    }

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List requests, the newest first."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.entries(page or []))

    def represent(self, row: RequestRecord) -> dict[str, Any]:
        """Return one request."""
        return dict(self.entries([row])[0])

    @extend_schema(responses=DecisionSerializer)
    @action(detail=True, methods=["get"], filter_backends=[])
    def decision(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Decide again what was decided then, from the record and the versions of the policies that it names."""
        query_values(request, set())
        return Response(asdict(reevaluate(self.row(id))))

    @extend_schema(responses=WhySerializer)
    @action(detail=True, methods=["get"], filter_backends=[])
    def explanation(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Explain why a request ended as it did: a sentence, and the path stage by stage."""
        query_values(request, set())
        return Response(asdict(why(self.row(id), self.caller)))

    def entries(self, records: Sequence[RequestRecord]) -> Any:
        """Return records as the API shows them, with their texts, which one query fetches for all."""
        texts = visible(RequestText.objects.filter(pk__in=[record.pk for record in records]), self.caller)
        return RecordSerializer(records, many=True, context={"texts": {text.pk: text for text in texts}}).data


class ChangeSerializer(serializers.ModelSerializer[ChangeRecord]):
    """One change of the configuration. ``before`` and ``after`` hold what differs, secrets only as marks."""

    organization = serializers.UUIDField(source="organization_id", allow_null=True)
    actor = serializers.UUIDField(source="actor_id", allow_null=True)

    class Meta:
        model = ChangeRecord
        fields = [
            "id",
            "timestamp",
            "organization",
            "actor",
            "actor_name",
            "via",
            "address",
            "action",
            "object_type",
            "object_id",
            "object_name",
            "before",
            "after",
            "reason",
        ]


@extend_schema(tags=["changes"])
class ChangeListing(Listing[ChangeRecord]):
    """The record of who changed what."""

    model = ChangeRecord
    serializer_class = ChangeSerializer
    filter_backends = [PeriodFilters]
    filters = {
        "organization": Filter("organization_id"),
        "actor": Filter("actor_id"),
        "action": Filter("action", as_text),
        "via": choice("via", "admin", "api", "command"),
        "object_type": Filter("object_type", as_text, "Such as policies.policy."),
        "object_id": Filter("object_id", as_text),
        **PERIOD,
    }


class TotalsSerializer(serializers.Serializer[Any]):
    """Usage in sums."""

    requests = serializers.IntegerField()
    tokens_input = serializers.IntegerField()
    tokens_output = serializers.IntegerField()
    cost_usd = serializers.CharField(help_text="US dollars, a decimal.")
    blocked = serializers.IntegerField()
    # The metaclass takes a declared field out of the class: the serializer's own `errors` stays what it was.
    errors = serializers.IntegerField(  # type: ignore[assignment]  # see above
        help_text="Requests that ended in an error or were interrupted."
    )


class GroupSerializer(TotalsSerializer):
    """Usage of one group."""

    key = serializers.CharField(allow_null=True, help_text="The model, id, day or status; null: none.")
    name = serializers.CharField(help_text="The key for people.")


class UsageSerializer(TotalsSerializer):
    """Usage in sums, and in groups if asked for."""

    group_by = serializers.CharField(allow_null=True)
    groups = GroupSerializer(many=True)


_SUMS: dict[str, Any] = {
    "requests": Count("pk"),
    "tokens_input": Sum("tokens_input", default=0),
    "tokens_output": Sum("tokens_output", default=0),
    "cost_nano_usd": Sum("cost_nano_usd", default=0),
    "blocked": Count("pk", filter=Q(status=Status.BLOCKED)),
    "errors": Count("pk", filter=Q(status__in=[Status.ERROR, Status.INTERRUPTED])),
}
# By the name of the grouping: the expression that groups, and the column of its name (the last one seen) if any.
_GROUPINGS: dict[str, tuple[Any, str | None]] = {
    "model": (F("model"), None),
    "application": (F("application_id"), "application_name"),
    "user": (F("user_id"), "user_name"),
    "day": (TruncDate("timestamp", tzinfo=UTC), None),
    "status": (F("status"), None),
}


class Usage(ApiView):
    """Usage: requests, tokens and cost in sums."""

    model = RequestRecord
    filters: ClassVar[Mapping[str, Filter]] = {
        "organization": Filter("organization_id"),
        "application": Filter("application_id"),
        "user": Filter("user_id"),
        "model": Filter("model", as_text),
        **PERIOD,
    }

    @extend_schema(
        tags=["metrics"],
        operation_id="metrics_usage",
        responses=UsageSerializer,
        parameters=[
            *(OpenApiParameter(name, one.schema(), description=one.description) for name, one in filters.items()),
            OpenApiParameter("group_by", str, enum=list(_GROUPINGS)),
        ],
    )
    def get(self, request: Request) -> Response:
        """Return the sums over all records that the caller may see and the filters let through."""
        if not may(self.caller, Action.VIEW, "audit.requestrecord"):
            raise PermissionDenied("Your role does not allow this.")
        given = query_values(request, {*self.filters, "group_by"})
        rows = visible(RequestRecord.objects.all(), self.caller)
        for name in given.keys() & self.filters.keys():
            value = read_value(name, given[name], self.filters[name].read)
            rows = rows.filter(_id_bounds(name, value), **{self.filters[name].lookup: value})
        group_by = read_value("group_by", given["group_by"], as_choice(*_GROUPINGS)) if "group_by" in given else None
        groups = _groups(rows, group_by) if group_by else []
        return Response({**_totals(rows.aggregate(**_SUMS)), "group_by": group_by, "groups": groups})


def _groups(rows: "QuerySet[RequestRecord]", group_by: str) -> list[dict[str, Any]]:
    expression, name = _GROUPINGS[group_by]
    names = {"name": Max(name)} if name else {}
    sums = rows.order_by().annotate(key=expression).values("key").annotate(**_SUMS, **names)
    order = "key" if group_by == "day" else "-requests"
    return [_group(found) for found in sums.order_by(order, "key")[:MAX_GROUPS]]


def _group(found: Mapping[str, Any]) -> dict[str, Any]:
    key = None if found["key"] is None else str(found["key"])
    return {"key": key, "name": found.get("name") or key or "", **_totals(found)}


def _totals(sums: Mapping[str, Any]) -> dict[str, Any]:
    totals = {name: sums[name] for name in ("requests", "tokens_input", "tokens_output", "blocked", "errors")}
    # SQLite and PostgreSQL both sum integers exactly; PostgreSQL's sum of bigints arrives as a Decimal.
    return {name: int(value) for name, value in totals.items()} | {
        "cost_usd": usd_from_nano(int(sums["cost_nano_usd"]))
    }
