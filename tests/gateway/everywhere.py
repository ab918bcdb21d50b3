"""Servers on one database, and changes made on one of them that must hold for the next request on all of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.services.server import ServerProcess, fresh_database

BODY = {"model": "sim-echo", "messages": [{"role": "user", "content": "Hello"}]}
Trial = tuple[str, int, list[int]]
"""What was changed, the status it must lead to, and the statuses of the next request in every process."""


@dataclass
class Everywhere:
    """Server processes, each on a port of its own, and one tenant."""

    servers: list[ServerProcess]
    calls: list[httpx.Client] = field(default_factory=list)
    admins: list[httpx.Client] = field(default_factory=list)

    def begin(self) -> None:
        """Connect to every server and create the tenant."""
        bearer = {"Authorization": f"Bearer {self.servers[0].demo['admin_api_key']}"}
        for server in self.servers:
            self.calls.append(httpx.Client(base_url=f"{server.url}/v1", timeout=30))
            self.admins.append(httpx.Client(base_url=f"{server.url}/v1/admin", headers=bearer, timeout=30))
        self._admin = cycle(self.admins)
        self._pool = ThreadPoolExecutor(len(self.servers))
        self.organization = self.change("POST", "/organizations", {"name": f"trials {uuid4()}"})["id"]
        owner = {"organization": self.organization, "name": "app"}
        self.application = self.change("POST", "/applications", owner)["id"]
        self.allowing = self._policy(self.organization, {"allow": ["*"]})
        self.switch = self._policy(None, {"deny": ["*"]}, "off")
        self.key = self.new_key()

    def change(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change something through one server's admin API, each time another's."""
        answer = next(self._admin).request(method, path, json=fields)
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    def new_key(self) -> dict[str, Any]:
        """Make a key of the tenant's application."""
        return self.change("POST", "/keys", {"application": self.application, "name": "key"})

    def ask(self, key: str) -> list[int]:
        """Send one request to every process at once; return the statuses."""
        headers = {"Authorization": f"Bearer {key}"}
        asked = [self._pool.submit(c.post, "/chat/completions", json=BODY, headers=headers) for c in self.calls]
        return [future.result().status_code for future in asked]

    def trials(self, count: int) -> list[Trial]:
        """Change something so many times, each kind in turn and then back, and see what every process makes of it."""
        done: list[Trial] = []
        kinds = cycle([self._revoke, self._add, self._edit, self._suspend, self._stop_all])
        while len(done) < count:
            done += next(kinds)()
        return done

    def end(self) -> None:
        """Close the connections."""
        for client in (*self.calls, *self.admins):
            client.close()
        self._pool.shutdown()

    def _revoke(self) -> Iterator[Trial]:
        key = self.new_key()
        yield "a new key", 200, self.ask(key["key"])
        self.change("POST", f"/keys/{key['id']}/revoke")
        yield "a revoked key", 401, self.ask(key["key"])

    def _add(self) -> Iterator[Trial]:
        denying = self._policy(self.organization, {"deny": ["sim-*"]})
        yield "a new policy", 403, self._seen()
        self.change("DELETE", f"/policies/{denying}")
        yield "a deleted policy", 200, self._seen()

    def _edit(self) -> Iterator[Trial]:
        self.change("PATCH", f"/policies/{self.allowing}", {"config": {"allow": ["gpt-*"]}})
        yield "a changed policy", 403, self._seen()
        self.change("PATCH", f"/policies/{self.allowing}", {"config": {"allow": ["*"]}})
        yield "a policy changed back", 200, self._seen()

    def _suspend(self) -> Iterator[Trial]:
        return self._switched("organization", f"/organizations/{self.organization}", "state", "suspended", "active")

    def _stop_all(self) -> Iterator[Trial]:
        return self._switched("the whole platform", f"/policies/{self.switch}", "mode", "enforce", "off")

    def _switched(self, what: str, path: str, name: str, stopped: str, running: str) -> Iterator[Trial]:
        self.change("PATCH", path, {name: stopped})
        yield f"{what} stopped", 403, self._seen()
        self.change("PATCH", path, {name: running})
        yield f"{what} running again", 200, self._seen()

    def _seen(self) -> list[int]:
        return self.ask(self.key["key"])

    def _policy(self, organization: str | None, config: dict[str, Any], mode: str = "enforce") -> str:
        fields = {"organization": organization, "name": f"policy {uuid4()}", "kind": "model_restriction"}
        return str(self.change("POST", "/policies", {**fields, "config": config, "mode": mode})["id"])


@contextmanager
def everywhere(folder: Path, processes: int = 4, **settings: str | None) -> Iterator[Everywhere]:
    """Start the servers and end them. ``settings`` are variables of their environment; ``None`` removes one."""
    environment = {"DATABASE_URL": fresh_database(), "WORKERS": "1", "DATA_DIR": str(folder / "data"), **settings}
    servers = []
    for number in range(processes):
        (folder / str(number)).mkdir()
        servers.append(ServerProcess(folder / str(number), environment))
    built = Everywhere(servers)
    try:
        servers[0].start()  # which makes the tables, the secrets and the demo data
        with ThreadPoolExecutor() as pool:
            list(pool.map(ServerProcess.start, servers[1:]))
        built.begin()
        yield built
        built.end()
    finally:
        for server in servers:
            server.stop()


def failed(trials: list[Trial]) -> list[Trial]:
    """Return the trials in which a process went on as before."""
    return [trial for trial in trials if set(trial[2]) != {trial[1]}]
