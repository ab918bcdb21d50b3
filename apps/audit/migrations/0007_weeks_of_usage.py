from typing import Any

from django.db import migrations, models

SUMS = ("requests", "tokens_input", "tokens_output", "cost_nano_usd", "blocked", "errors")
LATENCIES = tuple(f"latency_{number}" for number in range(20))
MONDAY = {"postgresql": "date_trunc('week', day)::date", "sqlite": "date(day, 'weekday 0', '-6 days')"}


def add_up_weeks(apps: Any, editor: Any) -> None:
    """Make the slices of weeks of those of days, which are all there is so far."""
    monday = MONDAY[editor.connection.vendor]
    sums = ", ".join(f"CAST(SUM({name}) AS bigint)" for name in (*SUMS, *LATENCIES))
    editor.execute(
        f"INSERT INTO audit_usageslice (organization_id, days, day, dimension, key, name, {', '.join(SUMS + LATENCIES)})"
        f" SELECT organization_id, 7, {monday}, dimension, key, MAX(name), {sums} FROM audit_usageslice"
        f" WHERE days = 1 GROUP BY organization_id, {monday}, dimension, key"
    )


def drop_weeks(apps: Any, editor: Any) -> None:
    """Leave the slices of days alone."""
    editor.execute("DELETE FROM audit_usageslice WHERE days = 7")


class Migration(migrations.Migration):
    dependencies = [("audit", "0006_search_and_exports")]

    operations = [
        migrations.RemoveConstraint(model_name="usageslice", name="one_slice_of_a_day"),
        migrations.RemoveIndex(model_name="usageslice", name="slice_day"),
        migrations.AddField(
            model_name="usageslice",
            name="days",
            field=models.PositiveSmallIntegerField(default=1, help_text="1, or 7 for a week."),
        ),
        migrations.AlterField(model_name="usageslice", name="day", field=models.DateField(help_text="The first.")),
        migrations.AddIndex(model_name="usageslice", index=models.Index(fields=["days", "day"], name="slice_days")),
        migrations.AddConstraint(
            model_name="usageslice",
            constraint=models.UniqueConstraint(
                fields=("organization_id", "days", "day", "dimension", "key"), name="one_slice_of_some_days"
            ),
        ),
        migrations.RunPython(add_up_weeks, drop_weeks),
    ]
