"""Usage in sums: how far records are counted, and what they come to by series, hour, day and label."""

from django.db import models


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
    """The sums of an organization on one day, or in one week, by one value of one dimension, such as one model.

    What a page shows of a whole organization or of all, without adding up its many series. Days are UTC's, and weeks
    begin with Monday. Latencies are those of successful requests.
    """

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    days = models.PositiveSmallIntegerField(default=1, help_text="1, or 7 for a week.")
    day = models.DateField(help_text="The first.")
    dimension = models.CharField(max_length=20)
    key = models.CharField(max_length=256, blank=True)
    name = models.CharField(max_length=200, blank=True)
    blocked = models.BigIntegerField()
    errors = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["days", "day"], name="slice_days")]
        constraints = [
            models.UniqueConstraint(
                fields=["organization_id", "days", "day", "dimension", "key"], name="one_slice_of_some_days"
            )
        ]

    def __str__(self) -> str:
        return f"{self.requests} requests by {self.dimension} {self.key} in {self.days} days from {self.day}"


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
