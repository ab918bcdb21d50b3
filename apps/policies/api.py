"""The JSON API of the policies, their versions, and prices."""

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.money import nano_from_usd, usd_from_nano
from apps.gateway.served import unserved
from apps.orgs.models import ApiKey, Application, Organization, User
from apps.orgs.rest.fields import ObjectSerializer, Reference, Text
from apps.orgs.rest.filters import PAGING, Filter, as_text, choice, query_values
from apps.orgs.rest.pages import CursorPages
from apps.orgs.rest.views import Collection, Listing
from apps.orgs.scoping import visible
from apps.policies.budgets import spent_now
from apps.policies.engine.kinds import ConfigError, Kind, parse_config, parse_terms
from apps.policies.engine.policy import Mode
from apps.policies.models import Budget, BudgetAlert, Policy, PolicyVersion, Price

MAX_NAME_CHARACTERS = 200
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


class PolicySerializer(ObjectSerializer[Policy]):
    """A policy. It stands on the platform (``organization`` null), an organization, or one thing inside of it."""

    organization = Reference(
        Organization, required=False, allow_null=True, help_text="Null: the platform. Left out: that of the scope."
    )
    application = Reference(Application, required=False, allow_null=True)
    user = Reference(User, required=False, allow_null=True)
    key = Reference(ApiKey, source="api_key", required=False, allow_null=True)
    name = Text(required=False, max_length=MAX_NAME_CHARACTERS)
    config = ConfigField()
    models = ModelsField(required=False, help_text="Patterns of the models it is for; empty: for all.")
    warnings = serializers.SerializerMethodField(help_text="Names of models that nobody serves (yet).")

    class Meta(ObjectSerializer.Meta):
        model = Policy
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
            "created_at",
            "updated_at",
            "warnings",
        ]
        read_only_fields = ["version"]
        fixed = ("organization",)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Complete the scope and the name, and refuse a configuration that is not of its kind."""
        attrs = super().validate(attrs)
        for name in self.initial_data.keys() - self.fields.keys():
            raise ValidationError({name: "A policy has no such field."})
        _check_config(self.said(attrs, "kind"), self.said(attrs, "config"))
        _check_terms(*(self.said(attrs, name) for name in ("models", "valid_from", "valid_until")))
        if self.instance is None:
            attrs = {"organization": _organization_of(attrs)} | attrs
            attrs = {"name": _name_of(attrs)} | attrs
        return attrs

    def said(self, attrs: dict[str, Any], name: str) -> Any:
        """Return what a field will be."""
        return attrs[name] if name in attrs else getattr(self.instance or _EMPTY, name)

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


class AlertSerializer(serializers.ModelSerializer[BudgetAlert]):
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
    alerts = AlertSerializer(many=True)

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
