"""Drafts of policies."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("policies", "0004_fence"),
    ]

    operations = [
        migrations.AddField(
            model_name="policy",
            name="draft",
            field=models.JSONField(
                blank=True, editable=False, help_text="What it is to say, once published.", null=True
            ),
        ),
    ]
