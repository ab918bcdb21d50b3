"""Whoever does not own the tables meets the rows of their scope alone (PostgreSQL)."""

from django.db import migrations

from apps.audit.operations import OF_THE_PLATFORM, Fenced


class Migration(migrations.Migration):
    dependencies = [("policies", "0003_rolling_windows_and_alerts"), ("audit", "0003_fence")]

    operations = [
        Fenced("policies_policy", read=OF_THE_PLATFORM),
        Fenced("policies_policyversion", read=OF_THE_PLATFORM),
        Fenced("policies_budget", read=OF_THE_PLATFORM),
        Fenced("policies_budgetalert", read=OF_THE_PLATFORM),
        Fenced("policies_ledgerentry"),
        Fenced("policies_reservation", of=("budget_id", "policies_budget")),
        Fenced("policies_spanpart", of=("budget_id", "policies_budget")),
    ]
