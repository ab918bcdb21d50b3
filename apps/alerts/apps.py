"""Telling people: alerts that were raised anywhere, sent to whoever wants to hear of them."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.alerts"
    verbose_name = "Alerts"
