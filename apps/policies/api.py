"""The JSON API of the policies, their versions, and prices."""

from copy import copy
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.money import nano_from_usd, usd_from_nano
from apps.gateway.served import unserved
from apps.orgs.models import ApiKey, Application, Organization, User
from apps.orgs.rest.errors import Conflict, model_rules
from apps.orgs.rest.fields import ObjectSerializer, Reference, Text, Whole
from apps.orgs.rest.filters import PAGING, Filter, as_text, choice, query_values
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.pages import CursorPages
from apps.orgs.rest.preconditions import etag_of
from apps.orgs.rest.views import Collection, Listing, json_object
from apps.orgs.roles import Action
from apps.orgs.scoping import visible
from apps.policies.budgets import spent_now
from apps.policies.drafts import (
    CONTENT,
    NoChange,
    NoDraft,
    content_of,
    difference,
    discard_draft,
    draft_of,
    keep_draft,
    publish_draft,
    roll_back,
)
from apps.policies.engine.kinds import ConfigError, Kind, parse_config, parse_terms
from apps.policies.engine.policy import Mode
from apps.policies.models import Budget, BudgetAlert, Policy, PolicyVersion, Price

MAX_NAME_CHARACTERS = 200
MAX_REASON_CHARACTERS = 500
FOR_THE_RECORD = "Kept in the change record."
MAX_USD_PER_MILLION = Decimal(10**6)
SCOPES = ("application", "user", "api_key")


@extend_schema_field({"type": "object", "additionalProperties": True})
class ConfigField(serializers.JSONField):
    """A policy's configuration; its kind says which fields it has."""


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class ModelsField(serializers.JSONField):
    """Patterns of model names."""


class WarningSerializer(serializers.Serializer[Any]):
    """Something that is allowed and probably not meant."""

    param = serializers.CharField()
    message = serializers.CharField()


class ContentSerializer(ObjectSerializer[Policy]):
    """What a policy says, whatever it stands on."""

    name = Text(required=False, max_length=MAX_NAME_CHARACTERS)
    config = ConfigField()
    models = ModelsField(required=False, help_text="Patterns of the models it is for; empty: for all.")

    class Meta(ObjectSerializer.Meta):
        model = Policy
        fields = [*CONTENT]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a configuration that is not of its kind."""
        attrs = super().validate(attrs)
        _check_config(self.said(attrs, "kind"), self.said(attrs, "config"))
        _check_terms(*(self.said(attrs, name) for name in ("models", "valid_from", "valid_until")))
        return attrs

    def said(self, attrs: dict[str, Any], name: str) -> Any:
        """Return what a field will be."""
        return attrs[name] if name in attrs else getattr(self.instance or _EMPTY, name)


class PolicySerializer(ContentSerializer):
    """A policy. It stands on the platform (``organization`` null), an organization, or one thing inside of it."""

    organization = Reference(
        Organization, required=False, allow_null=True, help_text="Null: the platform. Left out: that of the scope."
    )
    application = Reference(Application, required=False, allow_null=True)
    user = Reference(User, required=False, allow_null=True)
    key = Reference(ApiKey, source="api_key", required=False, allow_null=True)
    has_draft = serializers.SerializerMethodField(help_text="Whether a draft waits to be published.")
    warnings = serializers.SerializerMethodField(help_text="Names of models that nobody serves (yet).")

    class Meta(ContentSerializer.Meta):
        fields = [
            "id",
            "organization",
            "application",
            "user",
            "key",
            "name",
            "kind",
            "mode",
            "config",
            "models",
            "valid_from",
            "valid_until",
            "version",
            "has_draft",
            "created_at",
            "updated_at",
            "warnings",
        ]
        read_only_fields = ["version"]
        fixed = ("organization",)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Complete the scope and the name of a new policy."""
        attrs = super().validate(attrs)
        if self.instance is None:
            attrs = {"organization": _organization_of(attrs)} | attrs
            attrs = {"name": _name_of(attrs)} | attrs
        return attrs

    def get_has_draft(self, policy: Policy) -> bool:
        """Return whether there is one."""
        return draft_of(policy) is not None

    @extend_schema_field(WarningSerializer(many=True))
    def get_warnings(self, policy: Policy) -> list[dict[str, str]]:
        """Return what is probably not meant."""
        return [asdict(warning) for warning in unserved(policy)]


_EMPTY = Policy()


def _check_config(kind: str, config: Any) -> None:
    try:
        parse_config(kind, config)
    except ConfigError as error:
        message = [str(error)]
        raise ValidationError({"config": {error.field: message} if error.field else message}) from error


def _check_terms(models: Any, valid_from: datetime | None, valid_until: datetime | None) -> None:
    try:
        parse_terms(models, valid_from, valid_until)
    except ConfigError as error:
        raise ValidationError({error.field: [str(error)]}) from error


def _organization_of(attrs: dict[str, Any]) -> Organization | None:
    if "organization" in attrs:
        return cast("Organization | None", attrs["organization"])
    for name in ("application", "api_key"):
        if scope := attrs.get(name):
            return cast("Organization | None", scope.organization)
    raise ValidationError({"organization": "Name the organization, or null for the whole platform."})


def _name_of(attrs: dict[str, Any]) -> str:
    scope = next((attrs[name] for name in SCOPES if attrs.get(name)), attrs["organization"] or "the platform")
    name = scope.name if isinstance(scope, ApiKey) else str(scope)
    return f"{Kind(attrs['kind']).label} of {name}"[:MAX_NAME_CHARACTERS]


class DraftedSerializer(ContentSerializer):
    """What a draft is to say; what is left out is as it is published."""

    reason = Text(required=False, allow_blank=True, max_length=MAX_REASON_CHARACTERS, help_text=FOR_THE_RECORD)

    config = ConfigField(required=False)

    class Meta(ContentSerializer.Meta):
        fields = [*CONTENT, "reason"]
        extra_kwargs = {"kind": {"required": False}}


class ReasonSerializer(serializers.Serializer[Any]):
    """Why something is done."""

    reason = Text(required=False, allow_blank=True, max_length=MAX_REASON_CHARACTERS, help_text=FOR_THE_RECORD)


class RollbackSerializer(ReasonSerializer):
    """Which version is to hold again."""

    version = Whole(min_value=1, max_value=2**31 - 1)


class PolicyChangeSerializer(serializers.Serializer[Any]):
    """One field that differs, as people read it."""

    field = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()


class DraftSerializer(serializers.Serializer[Any]):
    """A draft: it applies to nobody until it is published."""

    policy = serializers.UUIDField()
    base_version = serializers.IntegerField(help_text="The version on which it was begun.")
    is_behind = serializers.BooleanField(help_text="Whether another version was published since.")
    by = serializers.CharField(help_text="Who saved it.")
    at = serializers.DateTimeField()
    name = serializers.CharField()
    kind = serializers.CharField()
    mode = serializers.CharField()
    config = ConfigField()
    models = ModelsField()
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)
    says_now = serializers.CharField(help_text="What the policy says, in words.")
    says = serializers.CharField(help_text="What it will say once the draft is published.")
    changes = PolicyChangeSerializer(many=True, help_text="Field by field.")


class PolicyVersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    """What a policy said from a moment on."""

    policy = serializers.UUIDField(source="policy_id")
    organization = serializers.UUIDField(source="organization_id", allow_null=True)
    config = ConfigField()
    models = ModelsField()

    class Meta:
        model = PolicyVersion
        fields = [
            "id",
            "policy",
            "organization",
            "version",
            "name",
            "kind",
            "mode",
            "level",
            "scope_id",
            "config",
            "models",
            "valid_from",
            "valid_until",
            "published_at",
        ]


@extend_schema(tags=["policies"])
class PolicyCollection(Collection[Policy]):
    """Policies. Each change publishes a version, which holds from the next request on."""

    model = Policy
    serializer_class = PolicySerializer
    ordered_by = "created_at"
    names = {"api_key": "key"}
    filters = {
        "organization": Filter("organization_id"),
        "application": Filter("application_id"),
        "user": Filter("user_id"),
        "key": Filter("api_key_id"),
        "name": Filter("name", as_text),
        "kind": choice("kind", *Kind),
        "mode": choice("mode", *Mode),
    }

    @extend_schema(responses=DraftSerializer)
    @action(detail=True, methods=["get"], filter_backends=[])
    def draft(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Return what a policy is to say, with what would change; 404 if it has no draft."""
        query_values(request, set())
        return self.answer_draft(self.row(id))

    @extend_schema(request=DraftedSerializer, responses=DraftSerializer)
    @draft.mapping.put
    def keep_draft(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Keep a draft, in place of the one there was. It applies to nobody until it is published."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            context = self.get_serializer_context()
            serializer = DraftedSerializer(row, data=json_object(request), partial=True, context=context)
            serializer.is_valid(raise_exception=True)
            said = dict(serializer.validated_data)
            reason, wanted = said.pop("reason", ""), copy(row)
            for name, value in said.items():
                setattr(wanted, name, value)
            with model_rules(self.names, self.unique):
                wanted.full_clean()
            keep_draft(row, wanted, self.actor, reason)
            return self.answer_draft(self.stored(row))

    @extend_schema(request=None, responses={204: None})
    @draft.mapping.delete
    def discard_draft(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Drop the draft; 404 if there is none."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            try:
                discard_draft(row, self.actor)
            except NoDraft as error:
                raise Http404 from error
        return Response(status=204)

    @extend_schema(request=ReasonSerializer, responses=PolicySerializer)
    @action(detail=True, methods=["post"])
    @once
    def publish(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Publish the draft as the next version, which holds from the next request on; 409 without a draft."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            said = _body(ReasonSerializer, request)
            try:
                with model_rules(self.names, self.unique):
                    publish_draft(row, self.actor, said.get("reason", ""))
            except NoDraft as error:
                raise Conflict("The policy has no draft.") from error
            return self.answer(self.stored(row))

    @extend_schema(request=RollbackSerializer, responses=PolicySerializer)
    @action(detail=True, methods=["post"])
    @once
    def rollback(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Publish what an older version said as the next version. A draft stays."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            said = _body(RollbackSerializer, request)
            versions = visible(PolicyVersion.objects.filter(policy_id=row.pk), self.caller)
            version = versions.filter(version=said["version"]).first()
            if version is None:
                raise ValidationError({"version": "There is no such version of this policy."})
            try:
                with model_rules(self.names, self.unique):
                    roll_back(row, version, self.actor, said.get("reason", ""))
            except NoChange as error:
                raise ValidationError({"version": str(error)}) from error
            return self.answer(self.stored(row))

    def answer_draft(self, row: Policy) -> Response:
        """Answer with a policy's draft, and with the ETag of the policy. Raises `Http404` without one."""
        draft = draft_of(row)
        if draft is None:
            raise Http404
        told = difference(row, draft.policy)
        shown = {
            "policy": str(row.pk),
            "base_version": draft.base_version,
            "is_behind": draft.is_behind,
            "by": draft.by,
            "at": draft.at,
            **content_of(draft.policy),
            "says_now": told.before,
            "says": told.after,
            "changes": [asdict(change) for change in told.changes],
        }
        return Response(shown, headers={"ETag": etag_of(row, self.represent(row))})

    @extend_schema(responses=PolicyVersionSerializer(many=True))
    @action(detail=True, methods=["get"], filter_backends=[])
    def versions(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """List what a policy said, the newest first."""
        query_values(request, PAGING)
        policy = self.row(id)
        rows = visible(PolicyVersion.objects.filter(policy_id=policy.pk), self.caller)
        pages = CursorPages()
        page = pages.paginate_queryset(rows, request)
        return pages.get_paginated_response(PolicyVersionSerializer(page, many=True).data)


def _body(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """Return a checked body. Raises `ValidationError`, for fields that it does not have as well."""
    body = json_object(request)
    checked = serializer(data=body)
    for name in body.keys() - checked.fields.keys():
        raise ValidationError({name: "There is no such field here."})
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)


@extend_schema_field({"type": "string", "format": "decimal", "example": "2.50"})
class UsdField(serializers.DecimalField):
    """US dollars as a decimal string, kept as nano-USD."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=16, decimal_places=9, min_value=0, max_value=MAX_USD_PER_MILLION, **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the amount in USD. A number with a point was a float somewhere and is refused."""
        if not isinstance(data, str | int) or isinstance(data, bool):
            raise ValidationError('Must be a decimal as text, such as "2.50".')
        return super().to_internal_value(data)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Return nano-USD, or what stands for a value that was not given."""
        usd = super().run_validation(data)
        return nano_from_usd(usd) if isinstance(usd, Decimal) else usd

    def to_representation(self, value: Any) -> str:
        """Write nano-USD as dollars."""
        return usd_from_nano(value)


class PriceSerializer(ObjectSerializer[Price]):
    """A price of the platform's own; it goes before the catalogue's."""

    input_usd_per_million = UsdField(source="input_nano_usd")
    output_usd_per_million = UsdField(source="output_nano_usd")
    cached_input_usd_per_million = UsdField(source="cached_input_nano_usd", required=False, allow_null=True)

    class Meta(ObjectSerializer.Meta):
        model = Price
        fields = [
            "id",
            "provider",
            "model",
            "input_usd_per_million",
            "output_usd_per_million",
            "cached_input_usd_per_million",
            "effective_from",
        ]


@extend_schema(tags=["prices"])
class PriceCollection(Collection[Price]):
    """Prices: for everyone to see, for superadmins to set."""

    model = Price
    serializer_class = PriceSerializer
    ordered_by = "effective_from"
    unique = "model"
    names = {
        "input_nano_usd": "input_usd_per_million",
        "output_nano_usd": "output_usd_per_million",
        "cached_input_nano_usd": "cached_input_usd_per_million",
    }
    filters = {"model": Filter("model", as_text), "provider": Filter("provider", as_text)}


class BudgetAlertSerializer(serializers.ModelSerializer[BudgetAlert]):
    """A percent of its limit that a budget crossed."""

    spent_usd = serializers.SerializerMethodField()

    class Meta:
        model = BudgetAlert
        fields = ["percent", "timestamp", "spent_usd"]

    def get_spent_usd(self, alert: BudgetAlert) -> str:
        """Return what was spent then."""
        return usd_from_nano(alert.spent_nano_usd)


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    """A cost cap's counter in one window. Amounts in US dollars; of a rolling window, what counts now."""

    policy = serializers.UUIDField(source="policy_id")
    organization = serializers.UUIDField(source="organization_id", allow_null=True)
    resets_at = serializers.DateTimeField(source="window_end", allow_null=True, help_text="Null: never, or rolling.")
    limit_usd = serializers.SerializerMethodField(help_text="As of the last request.")
    spent_usd = serializers.SerializerMethodField()
    reserved_usd = serializers.SerializerMethodField(help_text="The worst case of requests under way.")
    left_usd = serializers.SerializerMethodField()
    overrun_usd = serializers.SerializerMethodField(help_text="What providers used beyond what they were asked for.")
    alerts = BudgetAlertSerializer(many=True)

    class Meta:
        model = Budget
        fields = [
            "id",
            "policy",
            "organization",
            "window_start",
            "resets_at",
            "span_hours",
            "limit_usd",
            "spent_usd",
            "reserved_usd",
            "left_usd",
            "overrun_usd",
            "alerts",
        ]

    def get_limit_usd(self, budget: Budget) -> str:
        """Return the limit."""
        return usd_from_nano(budget.limit_nano_usd)

    def get_spent_usd(self, budget: Budget) -> str:
        """Return what is spent."""
        return usd_from_nano(spent_now(budget))

    def get_reserved_usd(self, budget: Budget) -> str:
        """Return what is set aside."""
        return usd_from_nano(budget.reserved_nano_usd)

    def get_left_usd(self, budget: Budget) -> str:
        """Return what a new request may claim."""
        return usd_from_nano(max(0, budget.limit_nano_usd - spent_now(budget) - budget.reserved_nano_usd))

    def get_overrun_usd(self, budget: Budget) -> str:
        """Return the overruns."""
        return usd_from_nano(budget.overrun_nano_usd)


@extend_schema(tags=["budgets"])
class BudgetListing(Listing[Budget]):
    """The counters of the cost caps, with the percents of their limits that were crossed."""

    model = Budget
    serializer_class = BudgetSerializer
    ordered_by = "window_start"
    filters = {"organization": Filter("organization_id"), "policy": Filter("policy_id")}

    def get_queryset(self) -> "QuerySet[Budget]":
        """Return what the caller may see, with what belongs to it."""
        return super().get_queryset().prefetch_related("alerts", "parts")
