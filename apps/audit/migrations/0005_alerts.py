"""Alerts, and an index that finds the records with attempts that failed."""

from django.db import migrations, models

import apps.audit.uuid7
from apps.audit.operations import Fenced


def find_failed_attempts(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "CREATE INDEX record_failed_attempts ON audit_requestrecord (id) "
            "WHERE error_code IN ('PROVIDER_ERROR', 'PROVIDER_TIMEOUT') OR jsonb_array_length(attempts) > 1"
        )


def forget_the_index(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX record_failed_attempts")


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0004_path_of_a_request"),
    ]

    operations = [
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "id",
                    models.UUIDField(default=apps.audit.uuid7.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("timestamp", models.DateTimeField()),
                ("organization_id", models.UUIDField(null=True)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("budget_threshold", "A budget's threshold is crossed"),
                            ("provider_down", "A provider does not answer"),
                            ("key_expiring", "An API key is about to expire"),
                            ("requests_interrupted", "Requests were interrupted"),
                            ("journal_spooling", "The journal spools: the database is away"),
                        ],
                        max_length=24,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("raised", "Raised"), ("resolved", "Resolved")], default="raised", max_length=12
                    ),
                ),
                ("topic", models.CharField(max_length=500)),
                ("title", models.CharField(max_length=300)),
                ("text", models.TextField()),
                ("details", models.JSONField(default=dict)),
                ("due_at", models.DateTimeField(help_text="Not sent before: what is summed up waits for the rest.")),
                (
                    "told_at",
                    models.DateTimeField(help_text="When it was handed to the destinations that want it.", null=True),
                ),
                ("resolved_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-id"],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["organization_id", "-id"], name="alert_organization"),
                    models.Index(
                        condition=models.Q(("told_at__isnull", True)), fields=["due_at"], name="alert_not_told"
                    ),
                    models.Index(
                        condition=models.Q(("resolved_at__isnull", True), ("state", "raised")),
                        fields=["kind"],
                        name="alert_open",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("resolved_at__isnull", True)),
                        fields=("topic",),
                        name="one_open_alert_of_a_topic",
                    )
                ],
            },
        ),
        migrations.RunPython(find_failed_attempts, forget_the_index),
        Fenced("audit_alert"),
    ]
