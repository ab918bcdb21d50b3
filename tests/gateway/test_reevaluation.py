"""An old decision is decided again from its record, with the same result, whatever the policies have become since."""

from pathlib import Path
from typing import Any

import pytest

from apps.audit.models import RequestRecord
from apps.gateway.reevaluation import reevaluate
from apps.policies.models import Policy
from tests.gateway.house import House, chat, pipeline, read_all, run

PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]}]
CAP = {"limit_usd": "0.1", "per": "day"}


def record_of(house: House, folder: Path, times: int = 1, **fields: Any) -> RequestRecord:
    async def call() -> None:
        async with pipeline(folder) as path:
            for _ in range(times):
                await read_all(await path.complete_chat(chat(house.key, **fields)))

    run(call)
    return house.records()[-1]


def change_everything(house: House) -> None:
    for policy in Policy.objects.filter(organization=house.organization):
        policy.kind, policy.config, policy.mode = "model_restriction", {"deny": ["*"]}, "shadow"
        policy.save()


CASES: list[tuple[str, list[tuple[str, dict[str, Any]]], dict[str, Any]]] = [
    ("", [], {}),
    ("", [("cost_cap", CAP), ("rate_limit", {"requests": 5, "tokens": 10**6, "per": "hour", "concurrent": 2})], {}),
    ("", [("request_limits", {"max_output_tokens": 5}), ("cost_cap", CAP | {"fit": "clamp"})], {}),
    ("MODEL_NOT_ALLOWED", [("model_restriction", {"deny": ["sim-*"]})], {}),
    ("FORBIDDEN", [("request_limits", {"max_output_tokens": 5})], {"max_tokens": 6}),
    ("FORBIDDEN", [("request_limits", {"features": {"tools": False, "n": False}})], {"tools": [{}], "n": 2}),
    ("PII_DETECTED", [("guardrail", {"detectors": {"email": "block"}})], {"text": "jane.doe@example.org"}),
    ("UNSCANNABLE_CONTENT", [("guardrail", {"detectors": {"email": "block"}})], {"messages": PICTURE}),
    ("RATE_LIMIT_EXCEEDED", [("rate_limit", {"requests": 1, "per": "hour"})], {"times": 2}),
    ("RATE_LIMIT_EXCEEDED", [("rate_limit", {"tokens": 5, "per": "hour"})], {"model": "sim-usage-4-2"}),
    (
        "BUDGET_EXCEEDED",
        [("cost_cap", {"limit_usd": "0.003", "per": "day"})],
        {"model": "sim-usage-1000-501", "times": 2},
    ),
    ("BUDGET_EXCEEDED", [("cost_cap", CAP | {"fit": "clamp"})], {"model": "sim-usage-200000-1"}),
    (
        "PII_DETECTED",
        [("guardrail", {"detectors": {"email": "block"}, "direction": "output"})],
        {"text": "jane.doe@example.org"},
    ),
]


@pytest.mark.parametrize(("code", "policies", "fields"), CASES)
def test_a_decision_is_the_same_when_it_is_decided_again(
    tmp_path: Path, code: str, policies: list[tuple[str, dict[str, Any]]], fields: dict[str, Any]
) -> None:
    house = House(policies)
    record = record_of(house, tmp_path, **fields)
    assert record.error_code == code
    change_everything(house)
    again = reevaluate(record)
    assert (again.same, again.allowed, again.code) == (True, code == "", code)
    assert len(again.reasons) == len(record.reasons)


@pytest.mark.parametrize("kind", ["model_restriction", "request_limits"])
def test_what_shadow_would_have_refused_is_the_same_when_it_is_decided_again(tmp_path: Path, kind: str) -> None:
    house = House()
    configs = {"model_restriction": {"deny": ["*"]}, "request_limits": {"max_output_tokens": 1}}
    house.add(kind, configs[kind], mode="shadow")
    house.add("rate_limit", {"tokens": 1, "per": "hour"}, mode="shadow")
    record = record_of(house, tmp_path, model="sim-usage-5-5", max_tokens=5)
    again = reevaluate(record)
    assert (again.same, again.allowed) == (True, True)
    assert [reason["enforced"] for reason in again.reasons] == [False]


def test_what_was_refused_before_the_policies_were_asked_is_said_to_be_so(tmp_path: Path) -> None:
    again = reevaluate(record_of(House(), tmp_path, model="no-such-model"))
    assert (again.same, again.allowed) == (True, None)


@pytest.mark.parametrize(
    "forged",
    [
        {"reasons": []},
        {"limits": []},
        {"model": "gpt-4o"},
        {"policies": []},
    ],
)
def test_a_record_that_says_something_else_than_the_policies_is_found_out(
    tmp_path: Path, forged: dict[str, Any]
) -> None:
    record = record_of(House([("request_limits", {"max_output_tokens": 5})]), tmp_path, max_tokens=6)
    for name, value in forged.items():
        setattr(record, name, value)
    assert not reevaluate(record).same


def test_a_version_that_is_gone_is_named(tmp_path: Path) -> None:
    record = record_of(House(), tmp_path)
    record.policies[0]["version"] = 7
    again = reevaluate(record)
    assert not again.same
    assert again.unseen == ["The version of policy 'model_restriction policy' that applied is gone."]
