"""What must hold before a server starts; each thing that does not is one clear line."""

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.checks import (
    identity_provider_is_whole,
    secrets_are_encrypted_under_keys_of_the_operator,
    simulated_provider_is_for_development,
)

_NEEDED_IN_PRODUCTION = ("SECRET_KEY", "KEY_PEPPERS", "ALLOWED_HOSTS")


def check_settings() -> None:
    """Raise `CommandError` for what is half set, and for what production cannot do without."""
    for problem in identity_provider_is_whole():
        raise CommandError(problem.msg)
    if not settings.PRODUCTION:
        return
    missing = [name for name in _NEEDED_IN_PRODUCTION if not getattr(settings, name)]
    if connection.vendor == "sqlite":
        missing.append("DATABASE_URL")
    if missing:
        raise CommandError(f"Production needs {', '.join(missing)} in the environment.")
    for problem in (*secrets_are_encrypted_under_keys_of_the_operator(), *simulated_provider_is_for_development()):
        raise CommandError(problem.msg)


def check_database() -> None:
    """Raise `CommandError` if the database cannot be reached; its address is shown, its password is not."""
    try:
        connection.ensure_connection()
    except OperationalError as error:
        database = connection.settings_dict
        where = f"{database.get('HOST') or 'local'}:{database.get('PORT') or 'default'}/{database.get('NAME')}"
        raise CommandError(f"The database at {where} cannot be reached.") from error


def migrate_or_refuse() -> None:
    """Apply migrations in development; in production raise `CommandError` if there are any to apply."""
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not pending:
        return
    if settings.PRODUCTION:
        raise CommandError(f"{len(pending)} migrations are not applied: run 'manage.py migrate' first.")
    call_command("migrate", verbosity=0, interactive=False)
