"""The operations document's database role, made as it says."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.docs.documents import document
from tests.services.server import ServerProcess, fresh_database

PASSWORD = "not-a-secret"


def as_role(url: str, role: str) -> str:
    """The same database, reached as another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("postgres://", "postgresql://", 1), autocommit=True)


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


def test_a_server_runs_on_the_role_of_the_document_and_cannot_rewrite_the_past(
    tmp_path: Path, postgres_only: None
) -> None:
    owner_url, role = fresh_database(), f"lcp_server_{uuid4().hex}"
    owner = ServerProcess(tmp_path, {"DATABASE_URL": owner_url}).start()
    owner.stop()
    (grants,) = document("docs/operations.md").fences("sql")
    with connect(owner_url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute(grants.replace("lcp_server", role).encode())
    url = as_role(owner_url, role)
    server = ServerProcess(tmp_path, {"DATABASE_URL": url}).start()
    try:
        call(server)
    finally:
        server.stop()
    try:
        with connect(url) as connection:
            for statement in (
                "DELETE FROM audit_requestrecord",
                "UPDATE policies_ledgerentry SET amount_nano_usd = 0",
                "DELETE FROM policies_budgetalert",
                "TRUNCATE audit_requestrecord",
                "ALTER TABLE audit_requestrecord DISABLE TRIGGER ALL",
                "SET lcp.retention = 'on'; DELETE FROM audit_requestrecord",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    finally:
        with connect(owner_url) as connection:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
