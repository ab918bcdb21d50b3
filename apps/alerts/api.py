"""The JSON API of alerts: what was told, where to, and what became of it."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError as ModelValidationError
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied, Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.alerts.addresses import MOST_CHARACTERS, check_destination
from apps.alerts.models import MOST_RECIPIENTS, Delivery, Destination
from apps.alerts.upkeep import UNREADABLE, TooManyTrials, may_retry, renew_secret, retry, try_out
from apps.audit.api.shared import PERIOD, PeriodFilters
from apps.audit.changes import state_of
from apps.audit.models import Alert
from apps.orgs.encryption import DecryptionError
from apps.orgs.models import Organization
from apps.orgs.rest.errors import Conflict
from apps.orgs.rest.fields import Choice, ObjectSerializer, Readable, Reference, Text
from apps.orgs.rest.filters import Filter, as_flag, choice
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.views import Collection, Listing
from apps.orgs.roles import Action


class DestinationSerializer(ObjectSerializer[Destination]):
    """Where alerts go. A webhook's signing secret is shown once, Slack's address never again but for its end."""

    organization = Reference(Organization, required=False, allow_null=True, help_text="None: the platform's alerts.")
    channel = Choice(choices=Destination.Channel.values)
    kinds = serializers.ListField(child=Choice(choices=Alert.Kind.values), allow_empty=False)
    recipients = serializers.ListField(
        child=Text(max_length=254), required=False, max_length=MOST_RECIPIENTS, help_text="Of e-mail."
    )
    url = Text(
        required=False,
        allow_blank=True,
        max_length=MOST_CHARACTERS,
        help_text="Of a webhook. Of Slack as well, but never shown: it is a secret.",
    )

    readable = Readable()

    class Meta(ObjectSerializer.Meta):
        model = Destination
        fields: ClassVar[list[str]] = [
            "id",
            "organization",
            "name",
            "channel",
            "kinds",
            "recipients",
            "url",
            "last_four",
            "readable",
            "is_active",
            "created_at",
        ]
        read_only_fields = ["last_four"]
        fixed = ("organization", "channel")

    def validate_url(self, url: str) -> str:
        """Refuse an address that no message would be posted to."""
        try:
            check_destination(url, "url")
        except ModelValidationError as error:
            raise ValidationError(error.messages) from None
        return url

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse Slack without its address; the rest is the model's to say."""
        attrs = super().validate(attrs)
        channel = attrs.get("channel") or getattr(self.instance, "channel", "")
        if channel == Destination.Channel.SLACK and self.instance is None and not attrs.get("url"):
            raise ValidationError({"url": "Give the address of the incoming webhook."})
        return attrs


class NewDestinationSerializer(DestinationSerializer):
    """A new destination; a webhook's with its signing secret."""

    signing_secret = serializers.CharField(read_only=True, help_text="Of a webhook, shown this once.")

    class Meta(DestinationSerializer.Meta):
        fields: ClassVar[list[str]] = [*DestinationSerializer.Meta.fields, "signing_secret"]


class OutcomeSerializer(serializers.Serializer[Any]):
    """What became of a test."""

    id = serializers.UUIDField(help_text="Of the destination.")
    arrived = serializers.BooleanField()
    outcome = serializers.CharField(help_text="In words.")


@extend_schema(tags=["alerts"])
class DestinationCollection(Collection[Destination]):
    """Where alerts go."""

    model = Destination
    serializer_class = DestinationSerializer
    ordered_by = "created_at"
    shown_once = frozenset({"signing_secret"})
    filters = {
        "organization": Filter("organization_id"),
        "channel": choice("channel", *Destination.Channel.values),
        "is_active": Filter("is_active", as_flag),
    }

    def get_queryset(self) -> "QuerySet[Destination]":
        """Return them with the keys by which their secrets are read."""
        return super().get_queryset().select_related("data_key")

    @extend_schema(responses={201: NewDestinationSerializer})
    def create(self, request: Request) -> Response:
        """Make a destination; a webhook's signing secret is in the answer, this once."""
        return super().create(request)

    def add(self, values: dict[str, Any]) -> tuple[Destination, dict[str, str]]:
        """Store a destination with its secrets and the record."""
        slack_url = values.pop("url", "") if values["channel"] == Destination.Channel.SLACK else ""
        row, shown = Destination(**values), {}
        self.allow_in(Action.ADD, row.organization_id)
        if row.channel == Destination.Channel.WEBHOOK:
            shown = {"signing_secret": row.new_signing_secret()}
        elif slack_url:
            row.set_slack_url(slack_url)
        self.save(row, before=None)
        return row, shown

    def apply(self, row: Destination, values: dict[str, Any]) -> None:
        """Store a changed destination; its secrets move with its address."""
        before = state_of(row)
        url = values.pop("url", None)
        for name, value in values.items():
            setattr(row, name, value)
        hidden: tuple[str, ...] = ()
        if url is not None and row.channel == Destination.Channel.SLACK:
            if url:
                row.set_slack_url(url)
                hidden = ("encrypted_secret",)
        elif url is not None and url != row.url:
            try:
                row.move(url)
            except DecryptionError:
                raise Conflict(UNREADABLE) from None
        self.save(row, before=before, hidden=hidden)

    @extend_schema(request=None, responses=OutcomeSerializer)
    @action(detail=True, methods=["post"])
    @once
    def test(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Send a test, and say what became of it. It can take up to ten seconds."""
        row = self.row(id)
        self.allow_on(Action.CHANGE, row)
        try:
            outcome = try_out(row, self.actor)
        except TooManyTrials:
            raise Throttled(detail="Too many tests were sent in the last ten minutes.") from None
        return Response({"id": str(row.pk), "arrived": outcome.arrived, "outcome": outcome.said})

    @extend_schema(request=None, responses={201: NewDestinationSerializer})
    @action(detail=True, methods=["post"], url_path="rotate")
    @once
    def renew(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Make a new signing secret, shown this once; the old one signs as well for 24 hours."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            if row.channel != Destination.Channel.WEBHOOK:
                raise ValidationError("Only a webhook has a signing secret.")
            try:
                secret = renew_secret(row, self.actor)
            except DecryptionError:
                raise Conflict(UNREADABLE) from None
            return self.answer(self.stored(row), 201, signing_secret=secret)


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """Something that there was to tell."""

    organization = serializers.UUIDField(source="organization_id", allow_null=True)

    class Meta:
        model = Alert
        fields = [
            "id",
            "timestamp",
            "organization",
            "kind",
            "state",
            "title",
            "text",
            "details",
            "told_at",
            "resolved_at",
        ]


@extend_schema(tags=["alerts"])
class AlertListing(Listing[Alert]):
    """What there was to tell, newest first."""

    model = Alert
    serializer_class = AlertSerializer
    filter_backends = [PeriodFilters]
    filters = {
        "organization": Filter("organization_id"),
        "kind": choice("kind", *Alert.Kind.values),
        "state": choice("state", *Alert.State.values),
        **PERIOD,
    }


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """A message to a destination: its alerts, and what became of it."""

    organization = serializers.UUIDField(source="organization_id", allow_null=True)
    destination = serializers.UUIDField(source="destination_id")
    alerts = serializers.SerializerMethodField()

    class Meta:
        model = Delivery
        fields = [
            "id",
            "organization",
            "destination",
            "alerts",
            "state",
            "attempts",
            "outcome",
            "due_at",
            "next_at",
            "sent_at",
        ]

    def get_alerts(self, delivery: Delivery) -> list[str]:
        """Return the ids of the alerts in it."""
        return [str(alert.pk) for alert in delivery.alerts.all()]


@extend_schema(tags=["alerts"])
class DeliveryListing(Listing[Delivery]):
    """Each message that went to a destination, or did not, newest first."""

    model = Delivery
    serializer_class = DeliverySerializer
    filters = {
        "organization": Filter("organization_id"),
        "destination": Filter("destination_id"),
        "state": choice("state", *Delivery.State.values),
    }

    def get_queryset(self) -> Any:
        """Return what the caller may see, with the alerts."""
        return super().get_queryset().prefetch_related("alerts")

    @extend_schema(request=None, responses=DeliverySerializer)
    @action(detail=True, methods=["post"], url_path="retry")
    @once
    def again(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Have a message that failed tried again, with the same id."""
        with transaction.atomic():
            row = self.row(id)
            if not may_retry(self.caller, row):
                raise PermissionDenied("Your role does not allow this.")
            if not retry(self.locked(row), self.actor):
                raise Conflict("Only a message that failed can be tried again.")
            return self.answer(self.row(id))
