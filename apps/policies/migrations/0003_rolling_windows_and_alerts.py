"""Rolling windows of cost caps, and the percents of a cap that were crossed."""

import django.db.models.deletion
from django.db import migrations, models

import apps.audit.uuid7
from apps.audit.operations import AppendOnly


class Migration(migrations.Migration):
    dependencies = [
        ("policies", "0002_request_limits_and_terms"),
    ]

    operations = [
        migrations.CreateModel(
            name="BudgetAlert",
            fields=[
                ("id", models.UUIDField(default=apps.audit.uuid7.uuid7, primary_key=True, serialize=False)),
                ("timestamp", models.DateTimeField()),
                ("organization_id", models.UUIDField(null=True)),
                (
                    "window_start",
                    models.DateTimeField(
                        help_text="Of a rolling window: the day on which it was crossed. Otherwise always the same."
                    ),
                ),
                ("percent", models.PositiveIntegerField()),
                ("spent_nano_usd", models.BigIntegerField()),
                ("limit_nano_usd", models.BigIntegerField()),
            ],
            options={
                "ordering": ["-id"],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SpanPart",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("starts_at", models.DateTimeField()),
                ("used_nano_usd", models.BigIntegerField()),
            ],
            options={
                "default_permissions": ("view",),
            },
        ),
        migrations.RemoveConstraint(
            model_name="budget",
            name="one_budget_in_a_window",
        ),
        migrations.AddField(
            model_name="budget",
            name="alert_at",
            field=models.JSONField(help_text="Percents of the limit to record, as of the last reservation.", null=True),
        ),
        migrations.AddField(
            model_name="budget",
            name="span_hours",
            field=models.PositiveIntegerField(help_text="Of a rolling window.", null=True),
        ),
        migrations.AddField(
            model_name="ledgerentry",
            name="part_start",
            field=models.DateTimeField(help_text="Under a rolling window: the part that it counts in.", null=True),
        ),
        migrations.AddField(
            model_name="reservation",
            name="part_start",
            field=models.DateTimeField(help_text="Under a rolling window: the part that it counts in.", null=True),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.UniqueConstraint(
                condition=models.Q(("span_hours__isnull", True)),
                fields=("policy_id", "window_start"),
                name="one_budget_in_a_window",
            ),
        ),
        migrations.AddField(
            model_name="budgetalert",
            name="budget",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="alerts", to="policies.budget"
            ),
        ),
        migrations.AddField(
            model_name="spanpart",
            name="budget",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="parts", to="policies.budget"
            ),
        ),
        migrations.AddConstraint(
            model_name="budgetalert",
            constraint=models.UniqueConstraint(
                fields=("budget", "percent", "window_start"), name="one_alert_in_a_window"
            ),
        ),
        AppendOnly("policies_budgetalert"),
    ]
