"""What must hold before a server starts; each thing that does not is one clear line."""

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from apps.audit import fence
from controlplane import database_roles
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
    """Raise `CommandError` if the database cannot be reached; its address is shown, its password is not.

    In development its owner is asked, who makes the others' roles.
    """
    check_same_database()
    if settings.PRODUCTION:
        _reach()
    else:
        with fence.owning():
            _reach()


def _reach() -> None:
    try:
        connection.ensure_connection()
    except OperationalError as error:
        database = connection.settings_dict
        where = f"{database.get('HOST') or 'local'}:{database.get('PORT') or 'default'}/{database.get('NAME')}"
        raise CommandError(f"The database at {where} cannot be reached.") from error


def check_same_database() -> None:
    """Raise `CommandError` if the addresses of the database lead to several."""
    name = settings.DATABASES["default"]["NAME"]
    others = {"WORKER_DATABASE_URL": settings.WORKER_DATABASE, "MIGRATION_DATABASE_URL": settings.MIGRATION_DATABASE}
    for variable, other in others.items():
        if other is not None and other["NAME"] != name:
            raise CommandError(f"{variable} must lead to the database of DATABASE_URL.")


def migrate_or_refuse() -> None:
    """Apply migrations in development; in production raise `CommandError` if there are any to apply.

    Where development names an owner, the roles of servers and workers are made, too.
    """
    if settings.PRODUCTION:
        if number := _pending_migrations():
            raise CommandError(f"{number} migrations are not applied: run 'manage.py migrate' first.")
        return
    with fence.owning():
        if _pending_migrations():
            call_command("migrate", verbosity=0, interactive=False)
        if settings.MIGRATION_DATABASE is not None:
            database_roles.make()


def check_fence() -> str:
    """Return a warning, or ``""`` if the fence between organizations holds for the pages' and the API's connections.

    Raises `CommandError` where the operator has an owner of its own and lets the server pass the fence all the same, or
    where the server's role cannot read the tables.
    """
    if connection.vendor != "postgresql":
        return ""
    try:
        with fence.serving():
            fenced = database_roles.is_fenced()
    except DatabaseError as error:
        raise CommandError(f"The role of DATABASE_URL cannot be used: {error}") from error
    if fenced:
        return ""
    if settings.MIGRATION_DATABASE is not None:
        raise CommandError(f"{_UNFENCED} Name one that owns nothing and is no superuser.")
    return f"Warning: {_UNFENCED} See 'Database' in docs/operations.md." if settings.PRODUCTION else ""


_UNFENCED = "The role of DATABASE_URL passes the database's fence between organizations."


def _pending_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
