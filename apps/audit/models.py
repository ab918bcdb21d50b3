"""What happened. Rows here hold ids and names as plain values, so that they outlive what they speak of."""

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


class RollupState(models.Model):
    """How far usage has been summed up: one row. What is not counted yet is added from the records themselves."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    counted_before = models.UUIDField(help_text="Records with a smaller id are in the sums, but for late ones.")
    rebuilding = models.DateField(null=True, help_text="The day that an unfinished rebuild comes to next.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"counted before {self.counted_before}"


class LateRecord(models.Model):
    """A record that was written long after its id was made, by a trigger: the sums may have passed it by."""

    id = models.UUIDField(primary_key=True)
    organization_id = models.UUIDField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)


class Measures(models.Model):
    """What is summed up. Latencies are counted by the bounds in `apps.audit.latency`, null for none."""

    requests = models.BigIntegerField()
    tokens_input = models.BigIntegerField()
    tokens_output = models.BigIntegerField()
    cost_nano_usd = models.BigIntegerField()
    latency_0 = models.IntegerField(null=True)
    latency_1 = models.IntegerField(null=True)
    latency_2 = models.IntegerField(null=True)
    latency_3 = models.IntegerField(null=True)
    latency_4 = models.IntegerField(null=True)
    latency_5 = models.IntegerField(null=True)
    latency_6 = models.IntegerField(null=True)
    latency_7 = models.IntegerField(null=True)
    latency_8 = models.IntegerField(null=True)
    latency_9 = models.IntegerField(null=True)
    latency_10 = models.IntegerField(null=True)
    latency_11 = models.IntegerField(null=True)
    latency_12 = models.IntegerField(null=True)
    latency_13 = models.IntegerField(null=True)
    latency_14 = models.IntegerField(null=True)
    latency_15 = models.IntegerField(null=True)
    latency_16 = models.IntegerField(null=True)
    latency_17 = models.IntegerField(null=True)
    latency_18 = models.IntegerField(null=True)
    latency_19 = models.IntegerField(null=True)

    class Meta:
        abstract = True


class UsageSeries(models.Model):
    """Requests that are alike in all that usage is grouped by. The names are those last seen."""

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=32, unique=True, help_text="Over all that makes them alike.")
    organization_id = models.UUIDField(db_index=True)
    organization_name = models.CharField(max_length=200)
    application_id = models.UUIDField(null=True)
    application_name = models.CharField(max_length=200, blank=True)
    user_id = models.UUIDField(null=True)
    user_name = models.CharField(max_length=200, blank=True)
    model = models.CharField(max_length=256, blank=True)
    provider = models.CharField(max_length=40, blank=True)
    status = models.CharField(max_length=12)
    error_code = models.CharField(max_length=40, blank=True)
    policy_id = models.CharField(max_length=36, blank=True, help_text="Of the policy that refused, if one did.")
    policy_name = models.CharField(max_length=200, blank=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.digest


class UsageHour(Measures):
    """The sums of one series in one hour (UTC)."""

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    series = models.ForeignKey(UsageSeries, on_delete=models.PROTECT, db_index=False)
    hour = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["organization_id", "hour", "series"], name="usage_of_an_hour")]

    def __str__(self) -> str:
        return f"{self.requests} requests in the hour of {self.hour}"


class UsageDay(Measures):
    """The sums of one series on one day (UTC)."""

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    series = models.ForeignKey(UsageSeries, on_delete=models.PROTECT, db_index=False)
    day = models.DateField(db_index=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["series", "day"], name="usage_of_a_day")]

    def __str__(self) -> str:
        return f"{self.requests} requests on {self.day}"


class UsageSlice(Measures):
    """The sums of an organization on one day (UTC) by one value of one dimension, such as one model.

    What a page shows of a whole organization or of all, without adding up its many series. Latencies are those of
    successful requests.
    """

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    day = models.DateField()
    dimension = models.CharField(max_length=20)
    key = models.CharField(max_length=256, blank=True)
    name = models.CharField(max_length=200, blank=True)
    blocked = models.BigIntegerField()
    errors = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["day"], name="slice_day")]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "day", "dimension", "key"], name="one_slice_of_a_day")
        ]

    def __str__(self) -> str:
        return f"{self.requests} requests by {self.dimension} {self.key} on {self.day}"


class CountedTag(models.Model):
    """A key of metadata that is counted for an organization, and how far its past has been."""

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    key = models.CharField(max_length=64)
    counted_before = models.UUIDField(null=True, help_text="While its past is being counted; null: as far as all else.")

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["organization_id", "key"], name="counted_tag_once")]

    def __str__(self) -> str:
        return self.key


class TagSeries(models.Model):
    """Requests of one caller with one value of a tag. Beyond the most values that are told apart, it is null."""

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=32, unique=True, help_text="Over all that makes them alike.")
    organization_id = models.UUIDField()
    application_id = models.UUIDField(null=True)
    user_id = models.UUIDField(null=True)
    key = models.CharField(max_length=64)
    value = models.TextField(null=True)  # noqa: DJ001  # an empty value is one too

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["organization_id", "key"], name="tag_series_key")]

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class TagDay(models.Model):
    """The sums of one series of a tag on one day (UTC)."""

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    series = models.ForeignKey(TagSeries, on_delete=models.CASCADE, db_index=True)
    day = models.DateField()
    requests = models.BigIntegerField()
    tokens_input = models.BigIntegerField()
    tokens_output = models.BigIntegerField()
    cost_nano_usd = models.BigIntegerField()
    blocked = models.BigIntegerField()
    errors = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["organization_id", "day", "series"], name="tag_on_a_day")]

    def __str__(self) -> str:
        return f"{self.requests} requests on {self.day}"


class Alert(models.Model):
    """Something that people should hear of. Whom it is sent to, and what became of that, is `apps.alerts`' business.

    ``topic`` makes it one: there is never more than one of a topic that is not resolved. What is over as soon as it
    happened (a threshold that was crossed) is never resolved, so its topic is for ever.
    """

    class Kind(models.TextChoices):
        """What it is about: people choose what they hear of."""

        BUDGET = "budget_threshold", "A budget's threshold is crossed"
        PROVIDER = "provider_down", "A provider does not answer"
        KEY = "key_expiring", "An API key is about to expire"
        INTERRUPTED = "requests_interrupted", "Requests were interrupted"
        JOURNAL = "journal_spooling", "The journal spools: the database is away"

    class State(models.TextChoices):
        """Whether it tells of something, or of its end."""

        RAISED = "raised"
        RESOLVED = "resolved"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField()
    organization_id = models.UUIDField(null=True)
    kind = models.CharField(max_length=24, choices=Kind)
    state = models.CharField(max_length=12, choices=State, default=State.RAISED)
    topic = models.CharField(max_length=500)
    title = models.CharField(max_length=300)
    text = models.TextField()
    details = models.JSONField(default=dict)
    due_at = models.DateTimeField(help_text="Not sent before: what is summed up waits for the rest.")
    told_at = models.DateTimeField(null=True, help_text="When it was handed to the destinations that want it.")
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ("view",)
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["topic"], condition=models.Q(resolved_at__isnull=True), name="one_open_alert_of_a_topic"
            )
        ]
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="alert_organization"),
            models.Index(fields=["due_at"], condition=models.Q(told_at__isnull=True), name="alert_not_told"),
            models.Index(
                fields=["kind"],
                condition=models.Q(state="raised", resolved_at__isnull=True),
                name="alert_open",
            ),
        ]

    def __str__(self) -> str:
        return self.title
