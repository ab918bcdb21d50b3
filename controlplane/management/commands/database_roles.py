"""``manage.py database_roles``: make the roles of servers and workers, and grant them what they need."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from apps.audit import fence
from controlplane import database_roles


class Command(BaseCommand):
    """Make, as the owner of MIGRATION_DATABASE_URL, the roles of the other two addresses. Safe to repeat."""

    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whether to do it or to say it."""
        parser.add_argument("--sql", action="store_true", help="Print the statements (with passwords), do nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, or say what it would be."""
        if settings.MIGRATION_DATABASE is None:
            raise CommandError("Name the owner of the tables in MIGRATION_DATABASE_URL.")
        owner, (server, worker) = settings.MIGRATION_DATABASE["USER"], database_roles.role_names()
        if not (server and worker):
            raise CommandError("Name a role in DATABASE_URL, and in WORKER_DATABASE_URL if it is set.")
        if owner in {server, worker}:
            raise CommandError(f"{owner} owns the tables: name other roles in DATABASE_URL and WORKER_DATABASE_URL.")
        with fence.owning():
            connection.ensure_connection()
            if options["sql"]:
                statements = [*database_roles.missing_roles(), *database_roles.grants(server, worker)]
                self.stdout.write("\n".join(f"{database_roles.as_text(statement)};" for statement in statements))
                return
            try:
                database_roles.make()
            except DatabaseError as error:
                raise CommandError(
                    f"{str(error).strip()}\nThe owner may not do this: have somebody run what --sql prints."
                ) from error
        apart = f"{server} (pages and the API) and {worker} (the journal, Celery, commands)"
        self.stdout.write(f"Ready for {server if server == worker else apart}.")
