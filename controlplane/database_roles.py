"""The database's roles for servers and workers: what each may do. They own nothing, so the fence holds for them.

Names and passwords are those of ``DATABASE_URL`` (the server's) and ``WORKER_DATABASE_URL`` (the worker's); the owner,
of ``MIGRATION_DATABASE_URL``, makes the roles once and grants again after each migration. What nobody may rewrite is
what the database's own triggers say; what the journal alone writes stands here.
"""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection, transaction
from psycopg import sql

WRITTEN_BY_WORKERS = frozenset(
    {
        "audit_countedtag",
        "audit_laterecord",
        "audit_openrequest",
        "audit_requestrecord",
        "audit_requesttext",
        "audit_rollupstate",
        "audit_tagday",
        "audit_tagseries",
        "audit_usageday",
        "audit_usagehour",
        "audit_usageseries",
        "audit_usageslice",
        "policies_budget",
        "policies_budgetalert",
        "policies_ledgerentry",
        "policies_reservation",
        "policies_spanpart",
    }
)
"""What the journal writes and what is summed up of that; pages and the API only read it."""
_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")

Statement = sql.Composable


def role_names() -> tuple[str, str]:
    """Return the names of the server's role and the worker's, which may be the same."""
    server = str(settings.DATABASES["default"]["USER"])
    return server, str(settings.WORKER_DATABASE["USER"]) if settings.WORKER_DATABASE else server


def missing_roles() -> list[Statement]:
    """Return the statements that make those of the roles that are not there."""
    passwords = {name: str(who["PASSWORD"]) for name, who in zip(role_names(), _logins(), strict=True)}
    there = {name for (name,) in _rows("SELECT rolname FROM pg_roles")}
    return [
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        for name, password in passwords.items()
        if name not in there
    ]


def make() -> None:
    """Make what is missing of the roles and grant them what they need, as the role of this thread's connection."""
    run(missing_roles())
    run(grants(*role_names()))


def grants(server: str, worker: str) -> list[Statement]:
    """Return the statements that give both roles what they need and take what they do not."""
    return list(_grants(server, worker))


def run(statements: list[Statement]) -> None:
    """Run statements, none of which has parameters, all or none of them and one process after another."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('lcp.roles'))")
        for statement in statements:
            cursor.execute(as_text(statement))


def as_text(statement: Statement) -> str:
    """Return a statement as psql takes it."""
    return statement.as_string(connection.connection)


def grant_to_those_who_are_there() -> None:
    """Grant again, as the owner and after a migration, unless the roles are still to be made or there are none."""
    server, worker = role_names()
    known = {name for (name,) in _rows("SELECT rolname FROM pg_roles WHERE rolname <> current_user")}
    if {server, worker} <= known:
        run(grants(server, worker))


def is_fenced() -> bool:
    """Whether PostgreSQL's policies hold for the role of this thread's connection."""
    return bool(_rows("SELECT row_security_active('orgs_organization')")[0][0])


def _logins() -> tuple[dict[str, Any], dict[str, Any]]:
    server: dict[str, Any] = settings.DATABASES["default"]
    return server, settings.WORKER_DATABASE or server


def _grants(server: str, worker: str) -> Iterator[Statement]:
    tables, fixed = _tables(), _append_only()
    for role in {server, worker}:
        name = sql.Identifier(role)
        yield sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(name)
        yield sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(name)
        yield sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}").format(name)
    for role, for_pages in ((server, True), (worker, False)):
        for table in tables:
            verbs = _VERBS[:1] if for_pages and table in WRITTEN_BY_WORKERS else _VERBS
            allowed = verbs[:2] if table in fixed else verbs
            yield sql.SQL("GRANT {} ON {} TO {}").format(
                sql.SQL(", ".join(allowed)), sql.Identifier(table), sql.Identifier(role)
            )


def _tables() -> list[str]:
    """Return the tables of the models, and of migrations: not the partitions, which nobody asks for by name."""
    models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    there = {name for (name,) in _rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    return sorted((models | {"django_migrations"}) & there)


def _append_only() -> set[str]:
    triggers = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = to_regproc('lcp_refuse_rewrite')"
    return {name for (name,) in _rows(triggers)}


def _rows(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())
