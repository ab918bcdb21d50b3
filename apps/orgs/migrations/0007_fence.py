"""Whoever does not own the tables meets the rows of their scope alone (PostgreSQL)."""

from django.db import migrations

from apps.audit.operations import ANY_OF_THE_SCOPE, OF_THE_PLATFORM, Fenced


class Migration(migrations.Migration):
    dependencies = [("orgs", "0006_usage_tags"), ("audit", "0003_fence")]

    operations = [
        Fenced("orgs_organization", "id"),
        Fenced("orgs_application"),
        Fenced("orgs_membership"),
        Fenced("orgs_usagetag"),
        # A key for no organization is its owner's.
        Fenced("orgs_apikey", also=f"{OF_THE_PLATFORM} AND user_id = {ANY_OF_THE_SCOPE}"),
        # What the platform has for everybody is used by everybody.
        Fenced("orgs_datakey", read=OF_THE_PLATFORM),
        Fenced("orgs_providercredential", read=OF_THE_PLATFORM),
    ]
