"""What a Lambda event can ask for apart from requests. Imported once Django is set up."""

from collections.abc import Callable
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apps.audit import partitions
from apps.audit.exports import orders
from apps.gateway import sweeper


def migrate() -> dict[str, Any]:
    """Apply the migrations that are missing; return their names, in order, as ``applied``."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    call_command("migrate", verbosity=0, interactive=False)
    return {"applied": [f"{migration.app_label}.{migration.name}" for migration, _ in plan]}


def sweep() -> dict[str, Any]:
    """Resolve requests whose process died; return how many, as ``resolved``."""
    return {"resolved": sweeper.sweep()}


def ensure_partitions() -> dict[str, Any]:
    """Create the audit's partitions of the months to come; return their names as ``created``."""
    return {"created": partitions.ensure_partitions()}


def expire_exports() -> dict[str, Any]:
    """Remove the files of exports whose time is over; return how many, as ``expired``."""
    return {"expired": orders.expire()}


def keep_warm() -> dict[str, Any]:
    """Do nothing: the event itself keeps the process."""
    return {}


WORK: dict[str, Callable[[], dict[str, Any]]] = {
    "user-migration": migrate,
    "sweep": sweep,
    "keep-warm": keep_warm,
    "ensure-partitions": ensure_partitions,
    "expire-exports": expire_exports,
}
"""By the event's ``type``."""
