"""Rate limits on the request's path: what the headers say is what happens, and a refusal consumes nothing."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from apps.gateway.pipeline import Answer
from apps.gateway.providers.base import Endpoint
from apps.gateway.routing import Environment
from apps.policies.rates.memory import MemoryRateStore
from tests.gateway.house import House, chat, pipeline, run
from tests.mock_upstream import MockUpstream
from tests.rates.conftest import Clock

NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
LEVELS = ("organization", "application", "key")


def said(answer: Answer) -> tuple[int, ...]:
    """The status, then the tightest limit's headers."""
    headers = dict(answer.headers)
    return (answer.status, *(int(headers[name]) for name in NAMES))


def test_the_headers_say_what_is_left_and_who_comes_back_when_told_is_served(tmp_path: Path) -> None:
    house, clock = House([("rate_limit", {"requests": 2, "per": "minute"})]), Clock()

    async def requests() -> list[tuple[int, ...]]:
        async with pipeline(tmp_path, rates=MemoryRateStore(clock)) as path:
            answers = [await path.complete_chat(chat(house.key)) for _ in range(3)]
            clock.now += int(dict(answers[-1].headers)["retry-after"])
            return [said(answer) for answer in (*answers, await path.complete_chat(chat(house.key)))]

    # A minute is counted in 512 buckets: an amount leaves with its bucket, 0.12 s late at most.
    assert run(requests) == [(200, 2, 1, 60), (200, 2, 0, 61), (429, 2, 0, 61), (200, 2, 1, 60)]


def test_tokens_are_taken_by_the_estimate_and_corrected_to_what_the_provider_reports(tmp_path: Path) -> None:
    house = House([("rate_limit", {"tokens": 10_000, "per": "minute"})], allow=("gpt-*",))

    async def requests() -> tuple[list[int], int]:
        endpoint = Endpoint("openai", upstream.base_url, "secret-of-the-test", trusted=True)
        async with pipeline(tmp_path, environment=Environment({"gpt-": endpoint}, simulated=False)) as path:
            left = []
            for _ in range(2):
                answer = await path.complete_chat(chat(house.key, "gpt-4o-mini", max_tokens=1000))
                left.append(int(dict(answer.headers)["x-ratelimit-remaining-tokens"]))
                await path.close()  # the correction comes after the answer
            return left, json.loads(answer.body)["usage"]["total_tokens"]

    with MockUpstream() as upstream:
        (first, second), used = run(requests)
    assert first <= 10_000 - 1000
    assert second == first - used


def test_a_request_that_one_scope_refuses_is_counted_in_none(tmp_path: Path) -> None:
    house = House()
    scopes = {"organization": {}, "application": {"application": house.application}, "key": {"api_key": house.api_key}}
    for level in LEVELS:
        limit = 1 if level == "key" else 5
        house.add("rate_limit", {"requests": limit, "per": "hour", "concurrent": 5}, **scopes[level])

    async def requests() -> tuple[list[int], list[int]]:
        rates = MemoryRateStore()
        async with pipeline(tmp_path, rates=rates) as path:
            answers = await asyncio.gather(*[path.complete_chat(chat(house.key)) for _ in range(4)])
            await path.close()
            configuration = (await path.configurations.find(house.key))[1]  # type: ignore[index]
            caller = configuration.callers[house.api_key.prefix]
            limits = configuration.judge(caller, "sim-echo", datetime.now(UTC)).limits.enforced
            left = [reading.remaining for reading in await rates.peek(limits, 0)]
            return sorted(answer.status for answer in answers), sorted(left)

    assert run(requests) == ([200, 429, 429, 429], [0, 4, 4, 5, 5, 5])
