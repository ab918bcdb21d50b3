"""Redis freezes and stops: budgets go on as if nothing had happened, rates do what was written down, and say so."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.mock_upstream import MockUpstream
from tests.services import accounts
from tests.services.redis import EmbeddedRedis
from tests.services.server import ServerProcess, fresh_database

PROCESSES = "{lcp}:processes"


class Limited:
    """A server with a Redis of its own, and a rate limit and a cost cap over the demo organization."""

    def __init__(self, folder: Path, when_redis_fails: str, requests: int = 10) -> None:
        self.upstream = MockUpstream()
        self.upstream.start()
        self.redis = EmbeddedRedis()
        self.database = fresh_database()
        self.redis_url = self.redis.start()
        environment: dict[str, str | None] = {
            "DATABASE_URL": self.database,
            "REDIS_URL": self.redis_url,
            "RATES_WHEN_REDIS_FAILS": when_redis_fails,
            "OPENAI_BASE_URL": self.upstream.base_url,
            "OPENAI_API_KEY": "x",
        }
        self.server = ServerProcess(folder, environment).start()
        self.add("rate_limit", {"requests": requests, "per": "hour"})
        self.add("cost_cap", {"limit_usd": "1000", "per": "total"})

    def add(self, kind: str, config: dict[str, object]) -> None:
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        body = {"kind": kind, "name": kind, "config": config, "organization": self.server.demo["organization"]}
        httpx.post(f"{self.server.url}/v1/admin/policies", json=body, headers=headers).raise_for_status()

    def chat(self, user: str, client: httpx.Client | None = None) -> int:
        body = {"model": "gpt-4o-mini", "user": user, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"Authorization": f"Bearer {self.server.demo['api_key']}"}
        post = httpx.post if client is None else client.post
        return post(f"{self.server.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code

    def freeze_redis(self) -> None:
        assert self.redis._process is not None
        os.kill(self.redis._process.pid, signal.SIGSTOP)

    def stop_redis(self) -> None:
        assert self.redis._process is not None
        os.kill(self.redis._process.pid, signal.SIGCONT)
        self.redis.stop()

    def add_a_process(self) -> None:
        """Let Redis see a process of another server, and the server learn of it."""
        with Redis.from_url(self.redis_url) as redis:
            (own,) = redis.zrange(PROCESSES, 0, -1)
            redis.zadd(PROCESSES, {"elsewhere": redis.time()[0] * 10**6 + 60 * 10**6})
            for _ in range(2):
                before = redis.zscore(PROCESSES, own)
                while redis.zscore(PROCESSES, own) == before:
                    time.sleep(0.02)

    def degraded(self) -> dict[str, list[str]]:
        """Return which parts each request went without, by the request's label."""
        return dict(accounts.read(self.database, "SELECT end_user, degraded FROM audit_requestrecord"))

    def metrics(self) -> str:
        return httpx.get(f"{self.server.url}/metrics").text

    def stop(self) -> None:
        self.server.stop()
        self.redis.stop()
        self.upstream.stop()


@pytest.fixture
def limited(request: pytest.FixtureRequest, tmp_path: Path, postgres_only: None) -> Iterator[Limited]:
    running = Limited(tmp_path, request.param)
    yield running
    running.stop()


@pytest.mark.parametrize("limited", ["local"], indirect=True)
def test_without_redis_a_process_admits_its_share_alone_and_every_record_and_a_counter_say_so(limited: Limited) -> None:
    assert limited.chat("shared") == 200
    limited.add_a_process()
    limited.freeze_redis()
    assert [limited.chat(f"frozen {number}") for number in range(3)] == [200] * 3
    limited.stop_redis()
    assert [limited.chat(f"stopped {number}") for number in range(3)] == [200, 200, 429]
    degraded = limited.degraded()
    assert degraded.pop("shared") == []
    assert list(degraded.values()) == [["rate_limits"]] * 6
    assert 'lcp_degraded_total{part="rate_limits"} 6.0' in limited.metrics()
    assert accounts.differences(limited.database, limited.upstream.calls) == []
    ((spent,),) = accounts.read(limited.database, "SELECT spent_nano_usd FROM policies_budget")
    assert spent == sum(cost for _, _, cost in accounts.recorded(limited.database).values()) > 0


@pytest.mark.parametrize("limited", ["closed"], indirect=True)
def test_where_rates_fail_closed_nothing_is_called_without_redis(limited: Limited) -> None:
    assert limited.chat("shared") == 200
    limited.freeze_redis()
    assert limited.chat("frozen") == 503
    limited.stop_redis()
    assert limited.chat("stopped") == 503
    assert len(limited.upstream.calls) == 1
