"""Requests, from their intent to their record, and changes to the configuration."""

from django.db import models

from apps.audit.money import usd_from_nano
from apps.audit.uuid7 import uuid7


class Status(models.TextChoices):
    """How a request ended."""

    SUCCESS = "success"
    ERROR = "error"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class OpenRequest(models.Model):
    """The intent of a call to a provider, committed before the call and deleted with the final record's insert.

    ``intent`` holds the columns of the `RequestRecord` as known at the start, so that a sweeper can finish it.
    """

    id = models.UUIDField(primary_key=True)
    organization_id = models.UUIDField()
    deadline = models.DateTimeField(db_index=True)
    worst_case_nano_usd = models.BigIntegerField()
    intent = models.JSONField()

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)


class RequestRecord(models.Model):
    """The one final record of a request: append-only, partitioned by the time in its id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField()
    organization_id = models.UUIDField()
    organization_name = models.CharField(max_length=200)
    application_id = models.UUIDField(null=True)
    application_name = models.CharField(max_length=200, blank=True)
    user_id = models.UUIDField(null=True)
    user_name = models.CharField(max_length=200, blank=True)
    api_key_id = models.UUIDField(null=True)
    api_key_prefix = models.CharField(max_length=16, blank=True)
    end_user = models.CharField(max_length=256, blank=True)
    endpoint = models.CharField(max_length=40)
    model = models.CharField(max_length=256, blank=True)
    provider = models.CharField(max_length=40, blank=True)
    upstream_model = models.CharField(max_length=256, blank=True)
    streamed = models.BooleanField(default=False)
    status = models.CharField(max_length=12, choices=Status)
    http_status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=40, blank=True)
    error_message = models.TextField(blank=True)
    tokens_input = models.BigIntegerField(default=0)
    tokens_output = models.BigIntegerField(default=0)
    tokens_cached = models.BigIntegerField(default=0)
    usage_source = models.CharField(
        max_length=12,
        blank=True,
        help_text="Who counted: the provider, an estimate of what was produced, or the worst case.",
    )
    cost_nano_usd = models.BigIntegerField(default=0)
    overrun_nano_usd = models.BigIntegerField(default=0)
    price = models.JSONField(default=dict)
    latency_ms = models.PositiveIntegerField(default=0)
    first_byte_ms = models.PositiveIntegerField(null=True)
    metadata = models.JSONField(default=dict)
    reasons = models.JSONField(default=list)
    policies = models.JSONField(default=list)
    findings = models.JSONField(default=list)
    limits = models.JSONField(default=list)
    attempts = models.JSONField(default=list)
    degraded = models.JSONField(default=list)
    path = models.JSONField(
        null=True,
        help_text="When each stage began, in microseconds since the request came, and how a stream was guarded.",
    )
    prompt_hash = models.CharField(max_length=64, blank=True)
    response_hash = models.CharField(max_length=64, blank=True)

    class Meta:
        default_permissions = ("view",)
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="record_organization"),
            models.Index(fields=["application_id", "-id"], name="record_application"),
            models.Index(fields=["organization_id", "model", "-id"], name="record_model"),
            models.Index(fields=["organization_id", "status", "-id"], name="record_status"),
            # Of the few records that have one alone: no other pays for them.
            models.Index(fields=["user_id", "-id"], name="record_user", condition=models.Q(user_id__isnull=False)),
            models.Index(
                fields=["organization_id", "error_code", "-id"],
                name="record_error",
                condition=~models.Q(error_code=""),
            ),
            models.Index(
                fields=["organization_id", "end_user", "-id"],
                name="record_end_user",
                condition=~models.Q(end_user=""),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def cost_usd(self) -> str:
        """The cost in US dollars."""
        return usd_from_nano(self.cost_nano_usd)


class RequestText(models.Model):
    """The redacted texts of a request, apart from its record so that they can be erased and the record stays valid."""

    id = models.UUIDField(primary_key=True, help_text="The id of the record.")
    organization_id = models.UUIDField()
    prompt_redacted = models.TextField(blank=True)
    response_redacted = models.TextField(blank=True)

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)


class ChangeRecord(models.Model):
    """One change to the configuration: who, when, from where, what it was before and what it is after."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField()
    organization_id = models.UUIDField(null=True)
    actor_id = models.UUIDField(null=True)
    actor_name = models.CharField(max_length=200)
    via = models.CharField(max_length=12, help_text="The door: admin, api or command.")
    address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=20)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=60)
    object_name = models.CharField(max_length=200)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    reason = models.TextField(blank=True)

    class Meta:
        default_permissions = ("view",)
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="change_organization"),
            models.Index(fields=["object_type", "object_id", "-id"], name="change_object"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_name}"
