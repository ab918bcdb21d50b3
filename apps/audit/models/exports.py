"""Searches with a name, and records written to files."""

from uuid import uuid4

from django.db import models

from apps.audit.uuid7 import uuid7


class SavedSearch(models.Model):
    """A search of records under a name: its owner's, or shared with the organization."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization_id = models.UUIDField(
        null=True, blank=True, help_text="Empty: a superadmin's, over the whole platform."
    )
    owner_id = models.UUIDField()
    owner_name = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    is_shared = models.BooleanField(
        "shared with the organization",
        default=False,
        help_text="Everyone in the organization who may search sees it, and may change it.",
    )
    criteria = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "saved searches"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "owner_id", "name"], name="saved_search_of_one_owner")
        ]

    def __str__(self) -> str:
        return self.name


class Export(models.Model):
    """Records written to a file for somebody: what was asked for, how far it is, and until when it can be had.

    The row is the truth, whoever does the work: a worker holds it for a time (``worker``, ``held_until``) and has to
    say again and again that it is alive. One organization's rows, or with none the whole platform's.
    """

    class Kind(models.TextChoices):
        """What is written."""

        RECORDS = "records", "Records"
        EVIDENCE = "evidence", "Evidence pack"

    class Format(models.TextChoices):
        """How records are written."""

        CSV = "csv", "CSV: for spreadsheets"
        JSONL = "jsonl", "JSONL: one JSON object a line, everything that a record says"
        PARQUET = "parquet", "Parquet: for data tools"
        ZIP = "zip", "ZIP: the evidence pack"

    class State(models.TextChoices):
        """How far it is."""

        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        EXPIRED = "expired", "Expired"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(null=True, blank=True, help_text="Empty: the whole platform.")
    owner_id = models.UUIDField()
    owner_name = models.CharField(max_length=200)
    via = models.CharField(max_length=12, help_text="The door: admin or api.")
    address = models.GenericIPAddressField(null=True, blank=True)
    created_at = models.DateTimeField()
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.RECORDS)
    format = models.CharField(max_length=12, choices=Format)
    criteria = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.WAITING)
    problem = models.TextField(blank=True, help_text="Why it failed, for people.")
    progress = models.PositiveSmallIntegerField(default=0, help_text="Per mille of the time that it covers.")
    records = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    worker = models.UUIDField(null=True, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ("view", "add")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="export_organization"),
            models.Index(
                fields=["state", "id"],
                name="export_to_do",
                condition=models.Q(state__in=["waiting", "running", "done"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.created_at:%Y-%m-%d %H:%M} UTC"

    @property
    def file_name(self) -> str:
        """What the file is called for whom it is downloaded to."""
        return f"{self.kind}-{self.created_at:%Y%m%d-%H%M%S}-{str(self.pk)[-6:]}.{self.format}"

    @property
    def is_under_way(self) -> bool:
        """Whether something is still going to happen to it."""
        return self.state in {self.State.WAITING, self.State.RUNNING}

    @property
    def percent(self) -> int:
        """How far it is, in percent."""
        return 100 if self.state in {self.State.DONE, self.State.EXPIRED} else self.progress // 10
