"""Many requests at once, over several servers without Redis, against nested cost caps."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import psycopg

from tests.services.server import ROOT, ServerProcess, fresh_database
from torture import Figures, long_test

NANO = 10**9
WORST_NANO_USD = 2_000_000
"""The worst case of every request of a storm: 1,000 tokens of output for 2 USD a million, and no input."""
LEVELS = ("platform", "organization", "application", "user", "key")


class Fleet:
    """Server processes on one database, each on a port of its own, with no Redis."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.database = fresh_database()
        environment = {
            "DATABASE_URL": self.database,
            "REDIS_URL": None,
            "WORKERS": "1",
            "DATA_DIR": str(folder / "data"),  # with the secrets, which all need alike
            # What is shown here is that money is exact, however long that takes: nobody is sent away for want of room.
            "MAX_IN_FLIGHT": "256",
            "MAX_JOURNAL_QUEUE_AGE_SECONDS": "30",
            "JOURNAL_WAIT_SECONDS": "30",
        }
        self.servers = [ServerProcess(_folder(folder, number), environment) for number in range(processes)]

    def start(self) -> None:
        self.servers[0].start()  # which makes the tables, the secrets and the demo data
        with ThreadPoolExecutor() as pool:
            list(pool.map(ServerProcess.start, self.servers[1:]))

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.replace("postgres://", "postgresql://", 1)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def verify_ledger(self) -> str:
        """Run `manage.py verify_ledger` beside the servers; return what it says. Raises if something differs."""
        command = [sys.executable, "manage.py", "verify_ledger"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.servers[0].environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def _folder(folder: Path, number: int) -> Path:
    own = folder / str(number)
    own.mkdir()
    return own


@contextmanager
def fleet(folder: Path, processes: int = 4) -> Iterator[Fleet]:
    built = Fleet(folder, processes)
    try:
        built.start()
        yield built
    finally:
        built.stop()


class Tenant:
    """An organization made over the admin API: an application's key and a user's, and five cost caps over each."""

    def __init__(self, fleet: Fleet, tight: str, limit_nano_usd: int, **terms: Any) -> None:
        self._fleet = fleet
        self._url = f"{fleet.servers[0].url}/v1/admin"
        self._headers = {"Authorization": f"Bearer {fleet.servers[0].demo['admin_api_key']}"}
        organization = self._made("organizations", name=f"storm {uuid4()}")["id"]
        application = self._made("applications", organization=organization, name="app")["id"]
        user = self._made(
            "users",
            username=f"storm-{uuid4()}",
            password=f"nobody-logs-in-{token_urlsafe(16)}",
            organization=organization,
            role="developer",
        )["id"]
        self._made("policies", organization=organization, kind="model_restriction", config={"allow": ["sim-*"]})
        by_application = self._made("keys", application=application, name="a")
        by_user = self._made("keys", user=user, organization=organization, name="u")
        owners = {"application": [by_application], "user": [by_user], "key": [by_user]}
        self.keys = [key["key"] for key in owners.get(tight, [by_application, by_user])]
        scopes = [
            ("platform", {"organization": None}),
            ("organization", {"organization": organization}),
            ("organization by the day", {"organization": organization}),
            ("application", {"application": application}),
            ("user", {"organization": organization, "user": user}),
            ("key", {"key": by_user["id"]}),
            ("the other key", {"key": by_application["id"]}),
        ]
        self.caps = {name: self._cap(name, scope, tight, limit_nano_usd, terms) for name, scope in scopes}
        self.tight = self.caps[tight]

    def _cap(self, name: str, scope: dict[str, Any], tight: str, limit: int, terms: dict[str, Any]) -> str:
        nano = limit if name == tight else 10**12
        config = {"limit_usd": f"{nano / NANO:.9f}", "per": "day" if "day" in name else "total", **terms}
        return str(self._made("policies", name=name, kind="cost_cap", config=config, **scope)["id"])

    def lift(self) -> None:
        """Take the cap on the whole platform away, so that the next tenant is free of it."""
        httpx.delete(f"{self._url}/policies/{self.caps['platform']}", headers=self._headers).raise_for_status()

    def _made(self, collection: str, **fields: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self._url}/{collection}", json=fields, headers=self._headers, timeout=30)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def counters(self) -> dict[str, tuple[int, int, int]]:
        """Return spent, reserved and overrun of each cap that was counted, in nano-USD."""
        names = {policy: name for name, policy in self.caps.items()}
        rows = self._fleet.query(
            "SELECT policy_id::text, spent_nano_usd, reserved_nano_usd, overrun_nano_usd FROM policies_budget"
            " WHERE policy_id = ANY(%s::uuid[])",
            list(names),
        )
        return {names[policy]: (spent, reserved, overrun) for policy, spent, reserved, overrun in rows}

    def storm(self, requests: int, used_tokens: int = 1000) -> Counter[str]:
        """Send so many requests at once, spread over all servers; return how often each status and code came."""
        return asyncio.run(self._storm(requests, used_tokens))

    async def _storm(self, requests: int, used_tokens: int) -> Counter[str]:
        urls = [f"{server.url}/v1/chat/completions" for server in self._fleet.servers]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            calls = [
                self._call(
                    session, urls[number % len(urls)], self.keys[number // len(urls) % len(self.keys)], used_tokens
                )
                for number in range(requests)
            ]
            return Counter(await asyncio.gather(*calls))

    async def _call(self, session: aiohttp.ClientSession, url: str, key: str, used_tokens: int) -> str:
        body = {
            "model": f"sim-usage-0-{used_tokens}",
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
            content = await answer.json()
            code = content["error"]["code"] if "error" in content else ""
            return f"{answer.status} {code}".strip()


@dataclass
class Storm:
    """What came of one storm whose requests each cost their worst case."""

    answers: Counter[str]
    counters: dict[str, tuple[int, int, int]]
    limit_nano_usd: int


def exact_storm(fleet: Fleet, tight: str, requests: int = 200, fits: int = 37) -> Storm:
    """Let ``requests`` at once meet five caps, of which the one on ``tight`` reaches for exactly ``fits``."""
    tenant = Tenant(fleet, tight, fits * WORST_NANO_USD)
    answers = tenant.storm(requests)
    storm = Storm(answers, tenant.counters(), fits * WORST_NANO_USD)
    tenant.lift()
    return storm


def check_exact(storm: Storm, requests: int = 200, fits: int = 37) -> None:
    assert storm.answers == {"200": fits, "429 BUDGET_EXCEEDED": requests - fits}, storm.answers
    spent = [spent for spent, _, _ in storm.counters.values()]
    assert max(spent) == fits * WORST_NANO_USD, storm.counters
    assert all((reserved, overrun) == (0, 0) for _, reserved, overrun in storm.counters.values()), storm.counters


def deadlocks(fleet: Fleet) -> int:
    return int(fleet.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0])


@long_test(seconds=900)
def money_storm(folder: Path, rounds: int = 50) -> Figures:
    """A cap for exactly 37 of 200 requests at once, on each of the five scopes in turn."""
    with fleet(folder) as servers:
        for number in range(rounds):
            check_exact(exact_storm(servers, LEVELS[number % len(LEVELS)]))
        assert deadlocks(servers) == 0
        servers.verify_ledger()
        return {"rounds": rounds, "admitted": 37, "refused": 163, "overspend": 0, "deadlocks": 0}


@long_test(seconds=300)
def ledger_verified_under_traffic(folder: Path, rounds: int = 10) -> Figures:
    """Beside storms of requests, some refused and all under way at once, the ledger adds up at every moment."""
    with fleet(folder) as servers, ThreadPoolExecutor(1) as pool:
        tenant = Tenant(servers, "organization", 10**12)
        said = ""
        for _ in range(rounds):
            storms = [pool.submit(tenant.storm, 400, 200) for _ in range(3)]
            while not all(storm.done() for storm in storms):
                said = servers.verify_ledger()
            assert [storm.result() for storm in storms] == [{"200": 400}] * 3
        said = servers.verify_ledger()
    return {"storms of 400": rounds * 3, "said": said}


@long_test(seconds=600)
def money_storm_with_a_worst_case_above_the_cost(folder: Path, rounds: int = 10) -> Figures:
    """Never over, and used up to less than one worst case: 200 at once, again and again until a request alone fails."""
    most_left = 0
    with fleet(folder) as servers:
        for number in range(rounds):
            most_left = max(most_left, use_up(servers, LEVELS[number % len(LEVELS)], 37 * WORST_NANO_USD // 2))
        assert deadlocks(servers) == 0
    return {"rounds": rounds, "overspend": 0, "most left": f"{most_left / WORST_NANO_USD:.2f} worst cases"}


def use_up(fleet: Fleet, tight: str, limit_nano_usd: int, at_once: int = 200) -> int:
    """Send storms of cheap requests with a dear worst case until nothing fits; return what is left, in nano-USD."""
    tenant = Tenant(fleet, tight, limit_nano_usd)
    while tenant.storm(1, used_tokens=200)["200"]:
        answers = tenant.storm(at_once, used_tokens=200)
        assert set(answers) <= {"200", "429 BUDGET_EXCEEDED"}, answers
    spent, reserved, overrun = tenant.counters()[tight]
    tenant.lift()
    assert (reserved, overrun) == (0, 0)
    left = limit_nano_usd - spent
    assert 0 <= left < WORST_NANO_USD, left
    return left
