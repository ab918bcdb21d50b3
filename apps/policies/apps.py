"""What is allowed: the engine, guardrails, rate limits, budgets and prices."""

from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.policies"
    verbose_name = "Policies"
