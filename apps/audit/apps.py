"""What happened: the journal, records and their search."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.audit"
    verbose_name = "Audit"
