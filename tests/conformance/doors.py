"""Both doors of one product on one database, with a mock upstream behind them, and tenants made through its API."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.mock_upstream import MockUpstream
from tests.services.redis import free_port
from tests.services.server import ROOT, ServerProcess, fresh_database

QUICK = {
    "BODY_DEADLINE_SECONDS": "2",
    "PROVIDER_FIRST_BYTE_SECONDS": "2",
    "PROVIDER_IDLE_SECONDS": "2",
    "SWEEP_SECONDS": "0",
    "OPENAI_API_KEY": "upstream-secret-1234567890",
}


class Product:
    """One installation: the plain ASGI server, and gunicorn's threads in front of the WSGI application."""

    def __init__(self, folder: Path) -> None:
        self.upstream = MockUpstream()
        self.upstream.start()
        self._settings: dict[str, str | None] = {
            **QUICK,
            "DATABASE_URL": fresh_database(),
            "OPENAI_BASE_URL": self.upstream.base_url,
        }
        self.asgi = ServerProcess(folder, self._settings).start()
        self.demo = self.asgi.demo
        self._wsgi: subprocess.Popen[bytes] | None = None
        self._wsgi_port = free_port()
        self._folder = folder

    def url(self, door: str) -> str:
        """Return a door's address; its server is started when it is first asked for."""
        if door == "asgi":
            return self.asgi.url
        if self._wsgi is None:
            self._start_wsgi()
        return f"http://127.0.0.1:{self._wsgi_port}"

    def logs(self) -> str:
        """Return everything the servers have said."""
        return "".join(path.read_text() for path in self._folder.glob("*.log"))

    def stop(self) -> None:
        """End both servers and the upstream."""
        if self._wsgi is not None:
            self._wsgi.terminate()
            self._wsgi.wait(20)
        self.asgi.stop()
        self.upstream.stop()

    def _start_wsgi(self) -> None:
        address = f"127.0.0.1:{self._wsgi_port}"
        command = [sys.executable, "-m", "gunicorn", "controlplane.wsgi:application", "--bind", address]
        with (self._folder / "gunicorn.log").open("ab") as log:
            self._wsgi = subprocess.Popen(
                [*command, "--worker-class", "gthread", "--threads", "8"],
                cwd=ROOT,
                env=self.asgi.environment(),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://{address}/health/ready", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError("gunicorn did not get ready:\n" + (self._folder / "gunicorn.log").read_text()[-3000:])


@dataclass
class Tenant:
    """An organization with an application and a key, made for one test."""

    product: Product
    organization: str
    application: str
    key: str
    key_id: str

    @classmethod
    def create(
        cls, product: Product, *policies: tuple[str, dict[str, Any]], allow: tuple[str, ...] = ("*",)
    ) -> "Tenant":
        """Create it; it may use every model unless ``allow`` says otherwise."""
        organization = _post(product, "/organizations", {"name": f"tenant {uuid4()}"})["id"]
        application = _post(product, "/applications", {"organization": organization, "name": "app"})["id"]
        key = _post(product, "/keys", {"application": application, "name": "key"})
        tenant = cls(product, organization, application, key["key"], key["id"])
        if allow:
            tenant.add("model_restriction", {"allow": list(allow)})
        for kind, config in policies:
            tenant.add(kind, config)
        return tenant

    def add(self, kind: str, config: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Add a policy to the organization."""
        given = {"organization": self.organization, "name": f"{kind} of the test", "kind": kind, "config": config}
        return _post(self.product, "/policies", {**given, **fields})

    def entries(self, seconds: float = 5, **filters: str) -> list[dict[str, Any]]:
        """Return the audit log, oldest first; a record that is written a moment after the answer is waited for."""
        deadline = time.monotonic() + seconds
        while True:
            answer = _api(self.product).get("/audit-logs", params={"organization": self.organization, **filters})
            found = list(reversed(answer.json()["results"]))
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def entry(self, seconds: float = 5) -> dict[str, Any]:
        """Return the only entry."""
        (entry,) = self.entries(seconds)
        return entry


def _api(product: Product) -> httpx.Client:
    headers = {"Authorization": f"Bearer {product.demo['admin_api_key']}"}
    return httpx.Client(base_url=f"{product.asgi.url}/v1/admin", headers=headers, timeout=30)


def _post(product: Product, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer = _api(product).post(path, json=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def post(url: str, key: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """POST a chat completion, as JSON or as the bytes given."""
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    return httpx.post(f"{url}/v1/chat/completions", headers=sent, timeout=30, **content)


def chat(text: str = "Hello", model: str = "gpt-4o-mini", **fields: Any) -> dict[str, Any]:
    """Return a body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


__all__ = ["Product", "Tenant", "chat", "post"]
