"""Who: organizations, applications, keys, users, roles, and the encryption of secrets."""

from django.apps import AppConfig


class OrgsConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.orgs"
    verbose_name = "Organizations"
