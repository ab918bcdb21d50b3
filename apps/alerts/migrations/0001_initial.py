"""Where alerts go, and the messages that went there."""

import uuid

import django.db.models.deletion
from django.db import migrations, models

import apps.audit.uuid7
from apps.audit.operations import Fenced
from apps.orgs.operations import StaysWithin


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("audit", "0005_alerts"),
        ("orgs", "0007_fence"),
    ]

    operations = [
        migrations.CreateModel(
            name="Destination",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                (
                    "channel",
                    models.CharField(
                        choices=[("email", "E-mail"), ("webhook", "Signed webhook"), ("slack", "Slack or compatible")],
                        max_length=12,
                    ),
                ),
                ("kinds", models.JSONField(default=list, help_text="The kinds of alert that it wants.")),
                ("recipients", models.JSONField(blank=True, default=list, help_text="E-mail addresses.")),
                (
                    "url",
                    models.URLField(
                        blank=True, help_text="Of a webhook. Slack's is a secret, and encrypted.", max_length=500
                    ),
                ),
                ("encrypted_secret", models.TextField(blank=True, editable=False)),
                ("encrypted_former", models.TextField(blank=True, editable=False)),
                ("former_until", models.DateTimeField(editable=False, null=True)),
                ("last_four", models.CharField(blank=True, editable=False, max_length=4)),
                ("is_active", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "data_key",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="+",
                        to="orgs.datakey",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alert_destinations",
                        to="orgs.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "alert destination",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(default=apps.audit.uuid7.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("organization_id", models.UUIDField(null=True)),
                ("destination_name", models.CharField(max_length=200)),
                (
                    "state",
                    models.CharField(
                        choices=[("waiting", "Waiting"), ("sent", "Sent"), ("failed", "Failed")],
                        default="waiting",
                        max_length=12,
                    ),
                ),
                ("due_at", models.DateTimeField(help_text="When it is tried for the first time.")),
                ("next_at", models.DateTimeField(help_text="When it is tried next.")),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("most_attempts", models.PositiveIntegerField(default=12)),
                ("outcome", models.CharField(blank=True, help_text="What the last attempt came to.", max_length=200)),
                ("sent_at", models.DateTimeField(null=True)),
                ("alerts", models.ManyToManyField(related_name="deliveries", to="audit.alert")),
                (
                    "destination",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="deliveries",
                        to="alerts.destination",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ["-id"],
                "default_permissions": ("view",),
            },
        ),
        migrations.AddConstraint(
            model_name="destination",
            constraint=models.UniqueConstraint(fields=("organization", "name"), name="alert_destination_name_unique"),
        ),
        migrations.AddConstraint(
            model_name="destination",
            constraint=models.UniqueConstraint(
                condition=models.Q(("organization__isnull", True)),
                fields=("name",),
                name="platform_alert_destination_name_unique",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["organization_id", "-id"], name="delivery_organization"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["destination", "-id"], name="delivery_destination"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(condition=models.Q(("state", "waiting")), fields=["next_at"], name="delivery_waiting"),
        ),
        StaysWithin("alerts_destination", {"data_key_id": "orgs_datakey"}),
        StaysWithin("alerts_delivery", {"destination_id": "alerts_destination"}),
        Fenced("alerts_destination"),
        Fenced("alerts_delivery"),
        Fenced("alerts_delivery_alerts", of=("delivery_id", "alerts_delivery")),
    ]
