"""The path of a request, from the key to the record."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.gateway"
    verbose_name = "Gateway"
