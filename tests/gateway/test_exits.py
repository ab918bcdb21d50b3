"""Exactly one final record on every way out, and nothing left open, reserved or taken."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from apps.audit.models import Status
from apps.gateway.configuration import Configurations
from apps.gateway.transport import Transport
from apps.policies.models import Budget, LedgerEntry, Reservation
from apps.policies.rates.memory import MemoryRateStore
from tests.gateway.house import House, Request, chat, pipeline, read_all, run


class BrokenRates(MemoryRateStore):
    async def take(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a defect in the rate limits")


class BrokenTransport(Transport):
    async def send(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a defect in the transport")


class SlowTransport(Transport):
    async def send(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(30)


CAP = ("cost_cap", {"limit_usd": "1", "per": "total"})
LIMIT = ("rate_limit", {"requests": 1000, "tokens": 10**9, "per": "minute", "concurrent": 5})


def answer_of(house: House, request: Request, folder: Path, **parts: Any) -> tuple[int, bytes]:
    async def call() -> tuple[int, bytes]:
        async with pipeline(folder, **parts) as path:
            answer = await path.complete_chat(request)
            return answer.status, await read_all(answer)

    return run(call)


def assert_settled(house: House) -> None:
    assert house.open_requests() == 0
    request_ids = [record.id for record in house.records()]
    assert not Reservation.objects.filter(request_id__in=request_ids).exists()
    for budget in Budget.objects.filter(organization_id=house.organization.id):
        assert budget.reserved_nano_usd == 0
        assert budget.spent_nano_usd == sum(e.amount_nano_usd for e in LedgerEntry.objects.filter(budget=budget))


def test_an_answer_is_recorded_with_its_usage_its_cost_and_its_texts(tmp_path: Path) -> None:
    house = House([CAP, LIMIT])
    status, body = answer_of(house, chat(house.key, "sim-usage-1000-500"), tmp_path)
    assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 500)
    record = house.only_record()
    assert (record.status, record.tokens_input, record.tokens_output) == ("success", 1000, 500)
    assert record.cost_nano_usd == 1000 * 1000 + 500 * 2000
    assert house.text(record.id).prompt_redacted == "user: Hello"
    assert LedgerEntry.objects.get(request_id=record.id).amount_nano_usd == record.cost_nano_usd
    assert_settled(house)


def test_a_stream_is_recorded_before_its_end_is_sent(tmp_path: Path) -> None:
    house = House([CAP])

    async def call() -> int:
        async with pipeline(tmp_path) as path:
            answer = await path.complete_chat(chat(house.key, "sim-stream-3", stream=True))
            assert answer.stream is not None
            async for piece in answer.stream:
                if b"[DONE]" in piece:
                    return await asyncio.to_thread(lambda: len(house.records()))
        return 0

    assert run(call) == 1
    assert house.only_record().status == "success"
    assert_settled(house)


@pytest.mark.parametrize("chunks", [0, 1, 5])
def test_a_client_that_leaves_a_stream_pays_for_what_had_come(tmp_path: Path, chunks: int) -> None:
    house = House([CAP, LIMIT])

    async def leave() -> None:
        async with pipeline(tmp_path) as path:
            answer = await path.complete_chat(chat(house.key, "sim-stream-500", stream=True))
            assert answer.stream is not None
            for _ in range(chunks):
                await anext(answer.stream)
            answer.stream.close(Status.CANCELLED)
            answer.stream.close(Status.CANCELLED)

    run(leave)
    record = house.only_record()
    assert record.status == "cancelled"
    assert record.tokens_input == 1
    assert record.tokens_output <= chunks
    assert record.cost_nano_usd == 1000 + record.tokens_output * 2000
    assert_settled(house)


def test_a_stream_that_breaks_upstream_is_an_error_and_charged_for_what_had_come(tmp_path: Path) -> None:
    house = House([CAP])
    _, body = answer_of(house, chat(house.key, "sim-broken-2", stream=True), tmp_path)
    assert b"[DONE]" not in body
    assert b'"code":"PROVIDER_ERROR"' in body
    record = house.only_record()
    assert (record.status, record.error_code, record.tokens_output) == ("error", "PROVIDER_ERROR", 2)
    assert_settled(house)


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("sim-error-500", 502, "PROVIDER_ERROR"),
        ("sim-error-429", 429, "PROVIDER_ERROR"),
        ("sim-broken-1", 502, "PROVIDER_ERROR"),
    ],
)
def test_a_provider_that_fails_leaves_one_error(tmp_path: Path, model: str, status: int, code: str) -> None:
    house = House([CAP, LIMIT])
    assert answer_of(house, chat(house.key, model), tmp_path)[0] == status
    record = house.only_record()
    assert (record.status, record.http_status, record.error_code) == ("error", status, code)
    assert_settled(house)


REFUSALS: list[tuple[str, list[tuple[str, dict[str, Any]]], dict[str, Any], int, str, str]] = [
    ("no policy", [], {"model": "gpt-5"}, 404, "MODEL_NOT_FOUND", "error"),
    ("denied", [("model_restriction", {"deny": ["sim-echo"]})], {}, 403, "MODEL_NOT_ALLOWED", "blocked"),
    (
        "guardrail",
        [("guardrail", {"detectors": {"email": "block"}})],
        {"text": "me@example.com"},
        400,
        "PII_DETECTED",
        "blocked",
    ),
    (
        "rate",
        [("rate_limit", {"tokens": 1, "per": "minute"})],
        {"model": "sim-usage-9-9"},
        429,
        "RATE_LIMIT_EXCEEDED",
        "blocked",
    ),
    (
        "budget",
        [("cost_cap", {"limit_usd": "0.000001", "per": "day"})],
        {"model": "sim-usage-9-9"},
        429,
        "BUDGET_EXCEEDED",
        "blocked",
    ),
    ("shape", [], {"n": -1}, 400, "INVALID_REQUEST", "error"),
]


@pytest.mark.parametrize(("name", "policies", "request_fields", "status", "code", "outcome"), REFUSALS)
def test_each_refusal_leaves_one_record_and_takes_nothing(
    tmp_path: Path,
    name: str,
    policies: list[tuple[str, dict[str, Any]]],
    request_fields: dict[str, Any],
    status: int,
    code: str,
    outcome: str,
) -> None:
    house = House([*policies, CAP, LIMIT])
    answered, body = answer_of(house, chat(house.key, **request_fields), tmp_path)
    assert (answered, json.loads(body)["error"]["code"]) == (status, code)
    record = house.only_record()
    assert (record.status, record.error_code, record.cost_nano_usd) == (outcome, code, 0)
    assert record.attempts == []
    assert_settled(house)


@pytest.mark.parametrize("parts", [{"rates": BrokenRates()}, {"transport": BrokenTransport()}])
def test_a_defect_in_a_stage_is_answered_and_recorded_once(tmp_path: Path, parts: dict[str, Any]) -> None:
    house = House([CAP, LIMIT])
    status, body = answer_of(house, chat(house.key), tmp_path, **parts)
    assert (status, json.loads(body)["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert b"defect" not in body
    record = house.only_record()
    assert (record.status, record.cost_nano_usd > 0) == ("error", bool(record.attempts))
    assert_settled(house)


def test_a_server_that_stops_in_the_middle_of_a_call_leaves_an_interrupted_record(tmp_path: Path) -> None:
    house = House([CAP, LIMIT])

    async def stop() -> None:
        async with pipeline(tmp_path, transport=SlowTransport()) as path:
            task = asyncio.ensure_future(path.complete_chat(chat(house.key)))
            while not await asyncio.to_thread(house.open_requests):
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(stop)
    record = house.only_record()
    assert (record.status, record.usage_source) == ("interrupted", "worst_case")
    assert record.cost_nano_usd == record.attempts[0]["worst_case_nano_usd"] > 0
    assert_settled(house)


def test_a_provider_is_called_only_with_an_open_request_committed(tmp_path: Path) -> None:
    house = House([CAP])
    seen: list[int] = []

    class Watching(Transport):
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(await asyncio.to_thread(house.open_requests))
            return await super().send(*args, **kwargs)

    assert answer_of(house, chat(house.key), tmp_path, transport=Watching(simulated=True))[0] == 200
    assert seen == [1]


def test_without_a_valid_key_nothing_is_recorded(tmp_path: Path) -> None:
    house = House()
    assert answer_of(house, chat(house.key[:-1] + ("x" if house.key[-1] != "x" else "y")), tmp_path)[0] == 401
    assert house.records() == []


def test_concurrency_slots_come_back_on_every_exit(tmp_path: Path) -> None:
    house = House([("rate_limit", {"concurrent": 1})])

    async def one_after_another() -> list[int]:
        async with pipeline(tmp_path) as path:
            statuses = []
            for model in ("sim-echo", "sim-error-500", "nope", "sim-broken-1", "sim-echo"):
                statuses.append((await path.complete_chat(chat(house.key, model))).status)
                await path.close()
            return statuses

    assert run(one_after_another) == [200, 502, 404, 502, 200]


def test_a_configuration_that_never_holds_still_is_a_503(tmp_path: Path) -> None:
    house = House([CAP, LIMIT])

    class Restless(Configurations):
        async def find(self, key: str) -> Any:
            found = await super().find(key)
            await asyncio.to_thread(house.add, "model_restriction", {"allow": ["sim-*"]})
            return found

    configurations = Restless()
    assert answer_of(house, chat(house.key), tmp_path, configurations=configurations)[0] == 503
    assert house.only_record().attempts == []
    assert_settled(house)
