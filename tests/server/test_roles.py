"""As which roles a server speaks to the database, and what it says of one that passes the fence."""

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from controlplane import preflight
from tests.server.test_serve import PRODUCTION, refusal
from tests.services.database_roles import PASSWORD, SERVER, there_are_roles
from tests.services.server import fresh_database

PASSES = "passes the database's fence between organizations"


@pytest.fixture(autouse=True)
def roles(postgres_only: None) -> None:
    if not there_are_roles():
        pytest.skip("needs a database server that lets its user make roles")


def as_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have DATABASE_URL name the server's role."""
    for name, value in (("USER", SERVER), ("PASSWORD", PASSWORD)):
        monkeypatch.setitem(connections.settings["default"], name, value)


def test_a_serving_role_that_passes_the_fence_is_told_or_refused(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    owner = dict(connections.settings["default"])
    assert preflight.check_fence() == ""
    settings.PRODUCTION = True
    assert PASSES in preflight.check_fence()
    settings.MIGRATION_DATABASE = owner
    with pytest.raises(CommandError, match=PASSES):
        preflight.check_fence()
    as_the_server(monkeypatch)
    assert preflight.check_fence() == ""


def test_a_server_whose_role_passes_the_fence_does_not_start_beside_an_owner(tmp_path: Path) -> None:
    owner = fresh_database()
    line = refusal(tmp_path, **PRODUCTION, DATABASE_URL=owner, WORKER_DATABASE_URL="", MIGRATION_DATABASE_URL=owner)
    assert PASSES in line


def test_the_owner_is_never_made_the_servers_role_and_all_addresses_lead_to_one_database(settings: Any) -> None:
    settings.MIGRATION_DATABASE = dict(connections.settings["default"])
    with pytest.raises(CommandError, match="owns the tables"):
        call_command("database_roles")
    settings.WORKER_DATABASE = {**settings.MIGRATION_DATABASE, "NAME": "elsewhere"}
    with pytest.raises(CommandError, match="WORKER_DATABASE_URL must lead"):
        preflight.check_same_database()
