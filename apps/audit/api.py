"""The JSON API of what happened: request records and their search and export, change records, and usage in sums."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit import usage
from apps.audit.exports import orders
from apps.audit.exports.attachment import TYPES, as_attachment
from apps.audit.exports.formats import missing
from apps.audit.exports.work import try_at_once
from apps.audit.finding import Reach, TooSlow, find
from apps.audit.models import ChangeRecord, Export, RequestRecord, RequestText, SavedSearch
from apps.audit.money import usd_from_nano
from apps.audit.search import CRITERIA, METADATA, SEARCHED, Search, SearchRefused, id_bounds, read_search
from apps.audit.usage import EARLIEST, LATEST, Group, Period, Scope, Sums
from apps.gateway.exporter import PRODUCERS
from apps.gateway.reevaluation import reevaluate
from apps.gateway.why import why
from apps.orgs.models import Organization, User
from apps.orgs.rest.errors import Conflict
from apps.orgs.rest.fields import Choice, Flag, ObjectSerializer, Reference, Text
from apps.orgs.rest.filters import (
    PAGING,
    Filter,
    QueryFilters,
    as_choice,
    as_flag,
    as_moment,
    as_text,
    choice,
    query_values,
    read_value,
)
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.pages import next_url, read_limit, read_place
from apps.orgs.rest.views import Additions, ApiView, Collection, Listing
from apps.orgs.roles import Action
from apps.orgs.scoping import may, organizations_of, reach, visible

MAX_GROUPS = 1000
TOO_SLOW = (
    "This search takes too long. Give a shorter period (since, until), or name a model, a status or an application."
)

PERIOD = {
    "since": Filter("timestamp__gte", as_moment, "From this moment on (ISO 8601)."),
    "until": Filter("timestamp__lt", as_moment, "Before this moment (ISO 8601)."),
}


class PeriodFilters(QueryFilters):
    """Filters that let the database skip the partitions outside of the period."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Apply each filter that the request gives."""
        filters: Mapping[str, Filter] = getattr(view, "filters", {})
        for name, text in query_values(request, PAGING | filters.keys()).items():
            if name in filters:
                value = read_value(name, text, filters[name].read)
                queryset = queryset.filter(_id_bounds(name, value), **{filters[name].lookup: value})
        return queryset


class SearchFilters(QueryFilters):
    """What can be searched by, for OpenAPI; `RecordListing` searches by itself."""

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the criteria."""
        labels = {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Records whose metadata has these values: metadata.<key>=<value>, once for each key.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
        return [*super().get_schema_operation_parameters(view), labels]


def _id_bounds(name: str, value: Any) -> Q:
    return id_bounds(Search({}, {name: value})) if name in PERIOD else Q()


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


def _read(given: Mapping[str, str]) -> Search:
    """Read a search. Raises `ValidationError`, naming each criterion that is wrong."""
    try:
        return read_search(given)
    except SearchRefused as refused:
        raise ValidationError(dict(refused.problems)) from refused


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
    filter_backends = [SearchFilters]
    filters = {name: Filter("", one.read, one.help or one.label, one.choices) for name, one in CRITERIA.items()}

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List requests, the newest first. A page may be short, or empty, and have a next one all the same.

        That is so where the search looks for something rare: it goes on at `next`.
        """
        given = query_values(request, PAGING | CRITERIA.keys(), METADATA)
        search = _read({name: text for name, text in given.items() if name not in PAGING})
        limit, place = read_limit(request), read_place(request)
        try:
            found = find(search, Reach(reach(self.caller, *SEARCHED)), limit, place)
        except TooSlow as error:
            raise ValidationError(TOO_SLOW) from error
        following = next_url(request, str(found.next)) if found.next else None
        return Response({"results": self.entries(found.records), "next": following})

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


# --- Saved searches and exports


class OrganizationId(Reference):
    """The id of an organization, in a column that is no reference."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Organization, source="organization_id", **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the id of an organization that the caller may see."""
        return super().to_internal_value(data).pk


class SavedSearchSerializer(ObjectSerializer[SavedSearch]):
    """A search under a name."""

    organization = OrganizationId(required=False, allow_null=True, help_text="Left out: your only one.")
    owner = serializers.UUIDField(source="owner_id", read_only=True)
    is_shared = Flag(required=False, help_text="Whether everyone in the organization has it.")
    search = serializers.DictField(
        source="criteria", child=Text(allow_blank=False), help_text="The parameters of audit-logs."
    )

    class Meta(ObjectSerializer.Meta):
        model = SavedSearch
        fields = ["id", "organization", "owner", "owner_name", "name", "is_shared", "search", "created_at"]
        read_only_fields = ["owner_name"]
        fixed = ("organization",)

    def validate_search(self, given: dict[str, str]) -> dict[str, str]:
        """Return the search as it is kept. Raises `ValidationError` for one that cannot be read."""
        return dict(_read(given).given)


@extend_schema(tags=["saved-searches"])
class SavedSearchCollection(Collection[SavedSearch]):
    """Searches that are kept: one's own, and those that are shared in the organization."""

    model = SavedSearch
    serializer_class = SavedSearchSerializer
    ordered_by = "created_at"
    names = {"criteria": "search"}
    filters = {
        "organization": Filter("organization_id"),
        "name": Filter("name", as_text),
        "is_shared": Filter("is_shared", as_flag),
    }

    def get_queryset(self) -> "QuerySet[SavedSearch]":
        """Return those that are shared, and the caller's own."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False) or self.caller.is_superuser:
            return rows
        return rows.filter(Q(is_shared=True) | Q(owner_id=self.caller.pk))

    def add(self, values: dict[str, Any]) -> tuple[SavedSearch, dict[str, str]]:
        """Store a search as the caller's own."""
        values["organization_id"] = _owner_of(self.caller, self.label, values.get("organization_id"))
        return super().add({**values, "owner_id": self.caller.pk, "owner_name": str(self.caller)})


def _owner_of(caller: User, label: str, organization_id: UUID | None) -> UUID | None:
    """Return the organization that something new is for: the one that is named, or the caller's only one."""
    if organization_id is not None or caller.is_superuser:
        return organization_id
    own = organizations_of(caller, Action.ADD, label)
    if len(own) != 1:
        raise ValidationError({"organization": "Name the organization: you are in several."})
    return next(iter(own))


class ExportSerializer(ObjectSerializer[Export]):
    """An export: what was asked for, how far it is, and where its file is."""

    organization = OrganizationId(required=False, allow_null=True, help_text="Left out: your only one.")
    owner = serializers.UUIDField(source="owner_id", read_only=True)
    kind = Choice(choices=Export.Kind.choices, required=False, help_text="An evidence pack is a ZIP archive.")
    format = Choice(choices=["csv", "jsonl", "parquet", "zip"], required=False, help_text="csv if left out.")
    search = serializers.DictField(
        source="criteria", child=Text(allow_blank=False), required=False, help_text="The parameters of audit-logs."
    )
    reason = Text(required=False, allow_blank=True, max_length=1000, help_text="For the record.")
    percent = serializers.IntegerField(read_only=True)

    class Meta(ObjectSerializer.Meta):
        model = Export
        fields = [
            "id",
            "organization",
            "owner",
            "owner_name",
            "created_at",
            "kind",
            "format",
            "search",
            "reason",
            "state",
            "problem",
            "percent",
            "records",
            "bytes",
            "sha256",
            "finished_at",
            "expires_at",
        ]
        read_only_fields = [
            *("owner_name", "created_at", "state", "problem", "records", "bytes", "sha256", "finished_at", "expires_at")
        ]

    def validate_search(self, given: dict[str, str]) -> dict[str, str]:
        """Return the search as it was given, if it can be read."""
        return dict(_read(given).given)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a format that the kind has not, or that cannot be written here."""
        values = super().validate(attrs)
        is_pack = values.setdefault("kind", Export.Kind.RECORDS.value) == Export.Kind.EVIDENCE
        said = values.setdefault("format", "zip" if is_pack else "csv")
        if (said == "zip") is not is_pack:
            raise ValidationError({"format": "An evidence pack is a zip; records are csv, jsonl or parquet."})
        if problem := missing(said):
            raise ValidationError({"format": problem})
        return values


@extend_schema(tags=["exports"])
class ExportListing(Additions[Export]):
    """Records as files: small ones are there at once, larger ones are written by a worker."""

    model = Export
    serializer_class = ExportSerializer
    filters = {
        "organization": Filter("organization_id"),
        "state": choice("state", *Export.State.values),
        "kind": choice("kind", *Export.Kind.values),
    }

    def add(self, values: dict[str, Any]) -> tuple[Export, dict[str, str]]:
        """Order an export and, if it is small, write it."""
        search = _read(values.pop("criteria", {}))
        named = values.pop("organization_id", None) or search.values.get("organization")
        organization_id = _owner_of(self.caller, self.label, named)
        self.allow_in(Action.ADD, organization_id)
        if search.values.get("organization", organization_id) != organization_id:
            raise ValidationError({"search.organization": "The export is for another organization."})
        if problem := orders.problem_of_order(organization_id):
            raise Conflict(problem)
        actor = self.actor
        row = Export(
            organization_id=organization_id,
            owner_id=self.caller.pk,
            owner_name=actor.name[:200],
            via=actor.via,
            address=actor.address,
            created_at=timezone.now(),
            criteria=orders.criteria_of(search, organization_id),
            **values,
        )
        self.save(row, before=None, reason=row.reason)
        # Once it is stored: a small one is written before the answer, which says what was ordered.
        transaction.on_commit(partial(try_at_once, row, PRODUCERS), robust=True)
        return row, {}

    @extend_schema(request=None, responses=ExportSerializer)
    @action(detail=True, methods=["post"])
    @once
    def cancel(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Cancel an export that waits or runs. Once more, or too late, changes nothing."""
        with transaction.atomic():
            row = self.row_for(Action.ADD, id)
            orders.cancel(row, self.actor)
            return self.answer(self.stored(row))

    @extend_schema(
        responses={(200, media_type.partition(";")[0]): OpenApiTypes.BINARY for media_type in TYPES.values()}
    )
    @action(detail=True, methods=["get"], filter_backends=[])
    def download(self, request: Request, id: str) -> Any:  # noqa: A002 (the name in the address)
        """Return the file of an export that is done and not expired. Each download is recorded."""
        query_values(request, set())
        row = self.row(id)
        self.allow_on(Action.ADD, row)
        try:
            file = orders.download(row, self.actor)
        except FileNotFoundError as error:
            raise NotFound(f"There is no file: the export is {row.state}, or its time is over.") from error
        return as_attachment(row, file)


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


_GROUPINGS = {"model": "model", "application": "application_id", "user": "user_id", "day": None, "status": "status"}
"""By the name of the grouping: the dimension of usage; a day is none."""


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
        values = {name: read_value(name, given[name], self.filters[name].read) for name in given.keys() - {"group_by"}}
        group_by = read_value("group_by", given["group_by"], as_choice(*_GROUPINGS)) if "group_by" in given else None
        scope, period = self._scope(values), Period(values.get("since", EARLIEST), values.get("until", LATEST))
        dimension = _GROUPINGS[group_by] if group_by else None
        sums, groups = usage.breakdown(scope, period, [dimension] if dimension else [], MAX_GROUPS)
        found = groups[dimension] if dimension else _days(scope, period) if group_by else []
        return Response({**_totals(sums), "group_by": group_by, "groups": [_group(group) for group in found]})

    def _scope(self, values: Mapping[str, Any]) -> Scope:
        own = reach(self.caller, "audit.requestrecord")
        if (chosen := values.get("organization")) is not None:
            own = frozenset({chosen}) if own is None else own & {chosen}
        return Scope(own, values.get("application"), values.get("user"), values.get("model"))


def _days(scope: Scope, period: Period) -> list[Group]:
    days = usage.timeline(scope, period, usage.DAY)
    return [Group(str(day.date()), "", sums) for day, sums in days.items()][:MAX_GROUPS]


def _group(group: Group) -> dict[str, Any]:
    return {"key": group.key, "name": group.name or group.key or "", **_totals(group.sums)}


def _totals(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "tokens_input": sums.tokens_input,
        "tokens_output": sums.tokens_output,
        "cost_usd": usd_from_nano(sums.cost_nano_usd),
        "blocked": sums.blocked,
        "errors": sums.errors,
    }
