"""Rows stay with their organization and name nothing of another one, by the database's word (PostgreSQL)."""

from django.db import migrations

from apps.orgs.operations import StaysWithin


class Migration(migrations.Migration):
    dependencies = [
        ("gateway", "0001_initial"),
        ("orgs", "0001_initial"),
        ("policies", "0003_rolling_windows_and_alerts"),
    ]

    operations = [
        StaysWithin("orgs_application"),
        StaysWithin("orgs_membership"),
        StaysWithin("orgs_providercredential"),
        StaysWithin("orgs_apikey", {"application_id": "orgs_application"}),
        StaysWithin("policies_policy", {"application_id": "orgs_application", "api_key_id": "orgs_apikey"}),
        StaysWithin(
            "gateway_modelroute",
            {"credential_id": "orgs_providercredential"},
            shared=("orgs_providercredential",),
        ),
    ]
