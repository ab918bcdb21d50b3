"""A policy's models and dates, and the kind ``request_limits``."""

from typing import Any

from django.db import migrations, models

from apps.audit.operations import AppendOnly
from apps.orgs.operations import BumpsConfigVersion

TRIGGERS: dict[str, Any] = {
    "policies_policy": BumpsConfigVersion("policies_policy"),
    "policies_policyversion": AppendOnly("policies_policyversion"),
}


def restore_triggers(apps, schema_editor):
    """SQLite builds some altered tables anew, and their triggers go with the old ones."""
    if schema_editor.connection.vendor != "sqlite":
        return
    for table, operation in TRIGGERS.items():
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [table])
            left = [name for (name,) in cursor.fetchall()]
        for name in left:
            schema_editor.execute(f'DROP TRIGGER "{name}"')
        operation.database_forwards("policies", schema_editor, None, None)


class Migration(migrations.Migration):
    dependencies = [("policies", "0001_initial")]

    operations = [
        migrations.RunPython(migrations.RunPython.noop, restore_triggers),
        migrations.AlterField(
            model_name="policy",
            name="kind",
            field=models.CharField(
                choices=[
                    ("rate_limit", "Rate limit"),
                    ("cost_cap", "Cost cap"),
                    ("model_restriction", "Model restriction"),
                    ("guardrail", "Guardrail"),
                    ("request_limits", "Request limits"),
                ],
                max_length=24,
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="models",
            field=models.JSONField(
                blank=True, default=list, help_text="Patterns of the models it is for; none: for all."
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="valid_from",
            field=models.DateTimeField(blank=True, null=True, help_text="UTC. Empty: at once."),
        ),
        migrations.AddField(
            model_name="policy",
            name="valid_until",
            field=models.DateTimeField(blank=True, null=True, help_text="UTC, no longer included. Empty: for ever."),
        ),
        migrations.AddField(model_name="policyversion", name="models", field=models.JSONField(default=list)),
        migrations.AddField(model_name="policyversion", name="valid_from", field=models.DateTimeField(null=True)),
        migrations.AddField(model_name="policyversion", name="valid_until", field=models.DateTimeField(null=True)),
        migrations.RunPython(restore_triggers, migrations.RunPython.noop),
    ]
