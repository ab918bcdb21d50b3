"""Whoever does not own the tables meets the rows of their scope alone (PostgreSQL)."""

from django.db import migrations

from apps.audit.operations import OF_THE_PLATFORM, Fenced


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_usage_rollups")]

    operations = [
        Fenced("audit_openrequest"),
        Fenced("audit_requestrecord"),
        Fenced("audit_requesttext"),
        # What was done to the platform is a superadmin's to read, but anybody may do something that is recorded so.
        Fenced("audit_changerecord", added=OF_THE_PLATFORM),
        Fenced("audit_laterecord"),
        Fenced("audit_usageseries"),
        Fenced("audit_usagehour"),
        Fenced("audit_usageday"),
        Fenced("audit_usageslice"),
        Fenced("audit_countedtag"),
        Fenced("audit_tagseries"),
        Fenced("audit_tagday"),
    ]
