from uuid import UUID

import django.db.models.deletion
from django.db import migrations, models

from apps.audit.operations import MarkLate


def nothing_counted(apps, schema_editor):
    state = apps.get_model("audit", "RollupState")(id=1, counted_before=UUID(int=0))
    state.save(using=schema_editor.connection.alias)


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="CountedTag",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("key", models.CharField(max_length=64)),
                (
                    "counted_before",
                    models.UUIDField(help_text="While its past is being counted; null: as far as all else.", null=True),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="LateRecord",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="RollupState",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                (
                    "counted_before",
                    models.UUIDField(help_text="Records with a smaller id are in the sums, but for late ones."),
                ),
                (
                    "rebuilding",
                    models.DateField(help_text="The day that an unfinished rebuild comes to next.", null=True),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="TagDay",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("day", models.DateField()),
                ("requests", models.BigIntegerField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("cost_nano_usd", models.BigIntegerField()),
                ("blocked", models.BigIntegerField()),
                ("errors", models.BigIntegerField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="TagSeries",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("digest", models.CharField(help_text="Over all that makes them alike.", max_length=32, unique=True)),
                ("organization_id", models.UUIDField()),
                ("application_id", models.UUIDField(null=True)),
                ("user_id", models.UUIDField(null=True)),
                ("key", models.CharField(max_length=64)),
                ("value", models.TextField(null=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UsageDay",
            fields=[
                ("requests", models.BigIntegerField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("cost_nano_usd", models.BigIntegerField()),
                ("latency_0", models.IntegerField(null=True)),
                ("latency_1", models.IntegerField(null=True)),
                ("latency_2", models.IntegerField(null=True)),
                ("latency_3", models.IntegerField(null=True)),
                ("latency_4", models.IntegerField(null=True)),
                ("latency_5", models.IntegerField(null=True)),
                ("latency_6", models.IntegerField(null=True)),
                ("latency_7", models.IntegerField(null=True)),
                ("latency_8", models.IntegerField(null=True)),
                ("latency_9", models.IntegerField(null=True)),
                ("latency_10", models.IntegerField(null=True)),
                ("latency_11", models.IntegerField(null=True)),
                ("latency_12", models.IntegerField(null=True)),
                ("latency_13", models.IntegerField(null=True)),
                ("latency_14", models.IntegerField(null=True)),
                ("latency_15", models.IntegerField(null=True)),
                ("latency_16", models.IntegerField(null=True)),
                ("latency_17", models.IntegerField(null=True)),
                ("latency_18", models.IntegerField(null=True)),
                ("latency_19", models.IntegerField(null=True)),
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("day", models.DateField(db_index=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UsageHour",
            fields=[
                ("requests", models.BigIntegerField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("cost_nano_usd", models.BigIntegerField()),
                ("latency_0", models.IntegerField(null=True)),
                ("latency_1", models.IntegerField(null=True)),
                ("latency_2", models.IntegerField(null=True)),
                ("latency_3", models.IntegerField(null=True)),
                ("latency_4", models.IntegerField(null=True)),
                ("latency_5", models.IntegerField(null=True)),
                ("latency_6", models.IntegerField(null=True)),
                ("latency_7", models.IntegerField(null=True)),
                ("latency_8", models.IntegerField(null=True)),
                ("latency_9", models.IntegerField(null=True)),
                ("latency_10", models.IntegerField(null=True)),
                ("latency_11", models.IntegerField(null=True)),
                ("latency_12", models.IntegerField(null=True)),
                ("latency_13", models.IntegerField(null=True)),
                ("latency_14", models.IntegerField(null=True)),
                ("latency_15", models.IntegerField(null=True)),
                ("latency_16", models.IntegerField(null=True)),
                ("latency_17", models.IntegerField(null=True)),
                ("latency_18", models.IntegerField(null=True)),
                ("latency_19", models.IntegerField(null=True)),
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("hour", models.DateTimeField(db_index=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UsageSeries",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("digest", models.CharField(help_text="Over all that makes them alike.", max_length=32, unique=True)),
                ("organization_id", models.UUIDField(db_index=True)),
                ("organization_name", models.CharField(max_length=200)),
                ("application_id", models.UUIDField(null=True)),
                ("application_name", models.CharField(blank=True, max_length=200)),
                ("user_id", models.UUIDField(null=True)),
                ("user_name", models.CharField(blank=True, max_length=200)),
                ("model", models.CharField(blank=True, max_length=256)),
                ("provider", models.CharField(blank=True, max_length=40)),
                ("status", models.CharField(max_length=12)),
                ("error_code", models.CharField(blank=True, max_length=40)),
                (
                    "policy_id",
                    models.CharField(blank=True, help_text="Of the policy that refused, if one did.", max_length=36),
                ),
                ("policy_name", models.CharField(blank=True, max_length=200)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UsageSlice",
            fields=[
                ("requests", models.BigIntegerField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("cost_nano_usd", models.BigIntegerField()),
                ("latency_0", models.IntegerField(null=True)),
                ("latency_1", models.IntegerField(null=True)),
                ("latency_2", models.IntegerField(null=True)),
                ("latency_3", models.IntegerField(null=True)),
                ("latency_4", models.IntegerField(null=True)),
                ("latency_5", models.IntegerField(null=True)),
                ("latency_6", models.IntegerField(null=True)),
                ("latency_7", models.IntegerField(null=True)),
                ("latency_8", models.IntegerField(null=True)),
                ("latency_9", models.IntegerField(null=True)),
                ("latency_10", models.IntegerField(null=True)),
                ("latency_11", models.IntegerField(null=True)),
                ("latency_12", models.IntegerField(null=True)),
                ("latency_13", models.IntegerField(null=True)),
                ("latency_14", models.IntegerField(null=True)),
                ("latency_15", models.IntegerField(null=True)),
                ("latency_16", models.IntegerField(null=True)),
                ("latency_17", models.IntegerField(null=True)),
                ("latency_18", models.IntegerField(null=True)),
                ("latency_19", models.IntegerField(null=True)),
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("day", models.DateField()),
                ("dimension", models.CharField(max_length=20)),
                ("key", models.CharField(blank=True, max_length=256)),
                ("name", models.CharField(blank=True, max_length=200)),
                ("blocked", models.BigIntegerField()),
                ("errors", models.BigIntegerField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.AddIndex(
            model_name="requestrecord",
            index=models.Index(
                condition=models.Q(("user_id__isnull", False)), fields=["user_id", "-id"], name="record_user"
            ),
        ),
        migrations.AddIndex(
            model_name="requestrecord",
            index=models.Index(
                condition=models.Q(("error_code", ""), _negated=True),
                fields=["organization_id", "error_code", "-id"],
                name="record_error",
            ),
        ),
        migrations.AddConstraint(
            model_name="countedtag",
            constraint=models.UniqueConstraint(fields=("organization_id", "key"), name="counted_tag_once"),
        ),
        migrations.AddIndex(
            model_name="tagseries",
            index=models.Index(fields=["organization_id", "key"], name="tag_series_key"),
        ),
        migrations.AddField(
            model_name="tagday",
            name="series",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="audit.tagseries"),
        ),
        migrations.AddField(
            model_name="usagehour",
            name="series",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, to="audit.usageseries"
            ),
        ),
        migrations.AddField(
            model_name="usageday",
            name="series",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, to="audit.usageseries"
            ),
        ),
        migrations.AddIndex(
            model_name="usageslice",
            index=models.Index(fields=["day"], name="slice_day"),
        ),
        migrations.AddConstraint(
            model_name="usageslice",
            constraint=models.UniqueConstraint(
                fields=("organization_id", "day", "dimension", "key"), name="one_slice_of_a_day"
            ),
        ),
        migrations.AddConstraint(
            model_name="tagday",
            constraint=models.UniqueConstraint(fields=("organization_id", "day", "series"), name="tag_on_a_day"),
        ),
        migrations.AddConstraint(
            model_name="usagehour",
            constraint=models.UniqueConstraint(fields=("organization_id", "hour", "series"), name="usage_of_an_hour"),
        ),
        migrations.AddConstraint(
            model_name="usageday",
            constraint=models.UniqueConstraint(fields=("series", "day"), name="usage_of_a_day"),
        ),
        MarkLate(),
        migrations.RunPython(nothing_counted, migrations.RunPython.noop),
    ]
