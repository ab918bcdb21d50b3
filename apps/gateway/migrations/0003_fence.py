"""Whoever does not own the tables meets the rows of their scope alone (PostgreSQL)."""

from django.db import migrations

from apps.audit.operations import OF_THE_PLATFORM, Fenced


class Migration(migrations.Migration):
    dependencies = [("gateway", "0002_links_within_an_organization"), ("audit", "0003_fence")]

    operations = [Fenced("gateway_modelroute", read=OF_THE_PLATFORM)]
