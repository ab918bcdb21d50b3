"""What happened: the journal, records and their search."""

from django.apps import AppConfig

from apps.audit import wires


class AuditConfig(AppConfig):
    """Django's entry for this app."""

    name = "apps.audit"
    verbose_name = "Audit"

    def ready(self) -> None:
        """Keep an eye on database connections, so that a hanging one can be cut."""
        wires.watch_connections()
