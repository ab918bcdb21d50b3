"""What a Lambda event can ask for apart from requests. Imported once Django is set up."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apps.alerts import teller
from apps.audit import fence, partitions
from apps.gateway import sweeper, usage_rolls
from controlplane import database_roles


def migrate() -> dict[str, Any]:
    """Apply the migrations that are missing and make the roles that are, as the owner where one is named.

    Their names are returned in order as ``applied``. ``fenced`` says whether the fence between organizations holds for
    the role that serves.
    """
    with fence.owning():
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    call_command("migrate", verbosity=0, interactive=False)
    if settings.MIGRATION_DATABASE is not None:
        with fence.owning():
            database_roles.make()
    with fence.serving():
        fenced = database_roles.is_fenced()
    return {"applied": [f"{migration.app_label}.{migration.name}" for migration, _ in plan], "fenced": fenced}


def sweep() -> dict[str, Any]:
    """Resolve requests whose process died; return how many, as ``resolved``."""
    return {"resolved": sweeper.sweep()}


def ensure_partitions() -> dict[str, Any]:
    """Create the audit's partitions of the months to come; return their names as ``created``."""
    with fence.owning():
        return {"created": partitions.ensure_partitions()}


def roll_usage() -> dict[str, Any]:
    """Bring the sums of usage up to date; return how many records were counted, as ``counted``."""
    return {"counted": usage_rolls.roll_usage()}


def tell() -> dict[str, Any]:
    """Look for what there is to tell and send what is due; return how many messages were tried, as ``tried``."""
    return {"tried": teller.tell()}


def keep_warm() -> dict[str, Any]:
    """Do nothing: the event itself keeps the process."""
    return {}


WORK: dict[str, Callable[[], dict[str, Any]]] = {
    "user-migration": migrate,
    "sweep": sweep,
    "tell": tell,
    "keep-warm": keep_warm,
    "roll-usage": roll_usage,
    "ensure-partitions": ensure_partitions,
}
"""By the event's ``type``."""
