"""What a record keeps of the path that its request went; older records have none."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_fence"),
    ]

    operations = [
        migrations.AddField(
            model_name="requestrecord",
            name="path",
            field=models.JSONField(
                help_text="When each stage began, in microseconds since the request came, and how a stream was guarded.",
                null=True,
            ),
        ),
    ]
