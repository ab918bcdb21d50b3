"""The operations document's database roles, made as it says."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.docs.documents import document
from tests.services.database_roles import as_role, there_are_roles
from tests.services.server import ROOT, ServerProcess, fresh_database

NO_PRIVILEGE = psycopg.errors.InsufficientPrivilege


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("postgres://", "postgresql://", 1), autocommit=True)


def manage(command: str, addresses: dict[str, str], data: Path) -> str:
    """Run one of the document's commands; return what it said."""
    assert f"manage.py {command.split(maxsplit=1)[0]}" in document("docs/operations.md").text
    environment = {**os.environ, **addresses, "DATA_DIR": str(data)}
    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(server: ServerProcess) -> None:
    with httpx.Client(base_url=f"{server.url}/v1", timeout=30) as client:
        admin = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}
        cap = {
            "organization": server.demo["organization"],
            "kind": "cost_cap",
            "config": {"limit_usd": "1", "per": "day"},
        }
        assert client.post("/admin/policies", json=cap, headers=admin).status_code == 201
        body = {"model": "sim-echo", "messages": [{"role": "user", "content": "Hello"}]}
        key = {"Authorization": f"Bearer {server.demo['api_key']}"}
        assert client.post("/chat/completions", json=body, headers=key).status_code == 200
        entries = client.get("/admin/audit-logs", headers=admin).json()["results"]
        assert [entry["status"] for entry in entries] == ["success"]


def test_a_server_runs_on_the_roles_of_the_document_and_cannot_rewrite_the_past(
    tmp_path: Path, postgres_only: None
) -> None:
    if not there_are_roles():
        pytest.skip("needs a database server that lets its user make roles")
    owner_url, name = fresh_database(), uuid4().hex
    server, worker = f"server_{name}", f"worker_{name}"
    addresses = {"DATABASE_URL": as_role(owner_url, server), "WORKER_DATABASE_URL": as_role(owner_url, worker)}
    owners = {**addresses, "MIGRATION_DATABASE_URL": owner_url}
    try:
        manage("migrate", owners, tmp_path)
        assert f'CREATE ROLE "{server}"' in manage("database_roles --sql", owners, tmp_path)
        for _ in range(2):
            assert server in manage("database_roles", owners, tmp_path)
        manage("migrate", owners, tmp_path)
        running = ServerProcess(tmp_path, {**addresses, "MIGRATION_DATABASE_URL": None}).start()
        try:
            call(running)
        finally:
            running.stop()
        assert "0 reservations" in manage("verify_ledger", addresses, tmp_path)
        refuses_to_rewrite(addresses["DATABASE_URL"])
        refuses_to_rewrite(addresses["WORKER_DATABASE_URL"])
        with connect(addresses["DATABASE_URL"]) as pages, pytest.raises(NO_PRIVILEGE):
            pages.execute("INSERT INTO audit_requesttext (id) VALUES (gen_random_uuid())")
    finally:
        with connect(owner_url) as connection:
            for role in (server, worker):
                if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def refuses_to_rewrite(url: str) -> None:
    with connect(url) as connection:
        for statement in (
            "DELETE FROM audit_requestrecord",
            "UPDATE policies_ledgerentry SET amount_nano_usd = 0",
            "DELETE FROM policies_budgetalert",
            "TRUNCATE audit_requestrecord",
            "ALTER TABLE audit_requestrecord DISABLE TRIGGER ALL",
            "ALTER TABLE audit_requestrecord DISABLE ROW LEVEL SECURITY",
            "SET lcp.retention = 'on'; DELETE FROM audit_requestrecord",
        ):
            with pytest.raises(NO_PRIVILEGE):
                connection.execute(statement.encode())
