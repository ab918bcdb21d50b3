"""Limits of one request, and policies for some models or for some time, on the whole path."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.gateway.transport import Transport
from apps.policies.models import Policy
from tests.gateway.house import House, chat, pipeline, read_all, run

SMALL = {"max_input_tokens": 100, "max_output_tokens": 20, "features": {"tools": False, "n": False}}


class Watched(Transport):
    """Remembers the bodies that go to the provider."""

    def __init__(self) -> None:
        super().__init__(simulated=True)
        self.sent: list[dict[str, Any]] = []

    async def send(self, request: Any, *deadline: Any) -> Any:
        self.sent.append(json.loads(request.body))
        return await super().send(request, *deadline)


def asked(house: House, folder: Path, model: str = "sim-echo", **fields: Any) -> tuple[int, dict[str, Any], Watched]:
    async def call() -> tuple[int, dict[str, Any], Watched]:
        transport = Watched()
        await transport.start()
        async with pipeline(folder, transport=transport) as path:
            answer = await path.complete_chat(chat(house.key, model, **fields))
            body = json.loads(await read_all(answer))
        await transport.close()
        return answer.status, body, transport

    return run(call)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "sim-usage-101-1"}, "allows 100 input tokens"),
        ({"max_tokens": 21}, "allows 20 output tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 21}, "allows 20 output tokens"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "does not allow tools"),
        ({"n": 2}, "does not allow more than one choice"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_and_never_sent(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    house = House([("request_limits", SMALL)])
    status, body, transport = asked(house, tmp_path, **fields)
    assert (status, body["error"]["code"]) == (403, "FORBIDDEN")
    assert words in body["error"]["message"]
    assert body["error"]["details"] == {"policy": "request_limits policy"}
    assert transport.sent == []
    record = house.only_record()
    assert (record.status, record.error_code) == ("blocked", "FORBIDDEN")
    assert [reason["policy"] for reason in record.reasons] == ["request_limits policy"]


def test_a_request_that_names_no_number_gets_the_limit_as_its_own(tmp_path: Path) -> None:
    house = House([("request_limits", {"max_output_tokens": 20})])
    status, _, transport = asked(house, tmp_path, "sim-usage-5-500", n=4)
    assert status == 200
    assert transport.sent[0]["max_completion_tokens"] == 5
    (reading,) = house.only_record().limits
    assert (reading["policy"], reading["output_allowance"]) == ("request_limits policy", 20)
    assert reading["asked"] == {"input_tokens": 5, "output_tokens": None, "choices": 4, "features": ["n"]}


def test_a_limit_in_shadow_changes_nothing_and_is_recorded(tmp_path: Path) -> None:
    house = House()
    house.add("request_limits", SMALL, mode="shadow")
    status, _, transport = asked(house, tmp_path, max_tokens=500)
    assert (status, transport.sent[0]["max_tokens"]) == (200, 500)
    assert [reason["enforced"] for reason in house.only_record().reasons] == [False]


def test_a_policy_for_some_models_leaves_the_others_alone(tmp_path: Path) -> None:
    house = House()
    house.add("request_limits", {"max_output_tokens": 1}, models=["sim-usage-*"])
    assert asked(house, tmp_path, max_tokens=5)[0] == 200
    assert asked(house, tmp_path, "sim-usage-1-5", max_tokens=5)[0] == 403


def test_a_policy_begins_and_ends_at_its_dates_although_nothing_else_changes(tmp_path: Path) -> None:
    house = House()
    begins = datetime.now(UTC) + timedelta(seconds=0.7)
    ends = begins + timedelta(seconds=0.7)
    house.add("model_restriction", {"deny": ["*"]}, valid_from=begins, valid_until=ends)

    async def statuses() -> list[int]:
        async with pipeline(tmp_path) as path:
            found = []
            for edge in (begins, ends, None):
                found.append((await path.complete_chat(chat(house.key))).status)
                if edge is not None:
                    await asyncio.sleep(max(0.0, (edge - datetime.now(UTC)).total_seconds()) + 0.01)
            return found

    statuses_found = run(statuses)
    assert statuses_found == [200, 403, 200]


@pytest.mark.parametrize(
    "row",
    [
        {"config": {"max_input_tokens": -5}},
        {"models": "gpt-*"},
        {"models": ["\u0007"]},
        {"valid_from": datetime(2030, 1, 2, tzinfo=UTC), "valid_until": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_row_that_became_invalid_in_the_database_denies(tmp_path: Path, row: dict[str, Any]) -> None:
    house = House()
    policy = house.add("request_limits", {"max_input_tokens": 10**6})
    Policy.objects.filter(pk=policy.pk).update(**row)
    status, body, _ = asked(house, tmp_path)
    assert (status, body["error"]["code"]) == (403, "FORBIDDEN")
    assert "cannot be read and therefore denies" in body["error"]["message"]
