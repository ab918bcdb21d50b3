"""What people should hear of."""

from django.db import models

from apps.audit.uuid7 import uuid7


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
