"""Django's ``migrate``, as the owner of the tables where one is named; servers and workers are granted what is new."""

from typing import Any

from django.conf import settings
from django.core.management.commands import migrate

from apps.audit import fence
from controlplane import database_roles


class Command(migrate.Command):
    """Migrate as MIGRATION_DATABASE_URL says."""

    def execute(self, *args: Any, **options: Any) -> Any:
        """Check and migrate, and grant again."""
        with fence.owning():
            done = super().execute(*args, **options)
            if settings.MIGRATION_DATABASE and not options["plan"]:
                database_roles.grant_to_those_who_are_there()
            return done
