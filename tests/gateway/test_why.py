"""Why a request ended as it did: one sentence that a person understands, and the path stage by stage."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from apps.audit.models import RequestRecord, Status
from apps.gateway.pipeline import Pipeline
from apps.gateway.providers.base import Fault
from apps.gateway.sentences import notes, sentence
from apps.gateway.why import STAGES, ended_in, why
from apps.orgs.models import User
from apps.policies.models import Policy
from tests.gateway.house import House, chat, pipeline, read_all, run

NAMED = "Team budget"
CAP = {"limit_usd": "0.003", "per": "day"}
CARD = "4111 1111 1111 1111"
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]}]


def record_of(house: House, folder: Path, times: int = 1, **fields: Any) -> RequestRecord:
    async def call() -> None:
        async with pipeline(folder) as path:
            for _ in range(times):
                await read_all(await path.complete_chat(chat(house.key, **fields)))

    run(call)
    return house.records()[-1]


def auditor(house: House) -> User:
    user = User.objects.create_user(f"auditor-{house.organization.pk}")
    user.memberships.create(organization=house.organization, role="auditor")
    return user


def nobody() -> User:
    return User.objects.create_user(f"nobody-{uuid4()}")


CASES: list[tuple[str, list[tuple[str, dict[str, Any]]], dict[str, Any], str]] = [
    (
        "deliver",
        [],
        {},
        r"Answered by simulated \(sim-echo\) in [\d,]+ ms: 1 input token and 1 output token, \$0\.\d+\.",
    ),
    (
        "open",
        [("cost_cap", CAP)],
        {"model": "sim-usage-1000-501", "times": 2},
        (
            r'Refused: policy "cost_cap policy" allows \$0.003 a day; \$0.002002 was spent and this request could have '
            r"cost \$0.002002\."
        ),
    ),
    (
        "take_limits",
        [("rate_limit", {"requests": 1, "per": "hour"})],
        {"times": 2},
        (
            r'Refused: policy "rate_limit policy" allows 1 request an hour; none was left\. It would have fitted '
            r"3,\d+\.\d s later\."
        ),
    ),
    (
        "take_limits",
        [("rate_limit", {"tokens": 5, "per": "minute"})],
        {"model": "sim-usage-4-2"},
        'Refused: policy "rate_limit policy" allows 5 tokens a minute; this request alone was expected to use 6.',
    ),
    (
        "judge",
        [("model_restriction", {"deny": ["sim-*"]})],
        {},
        "Refused: policy \"model_restriction policy\" denies the model 'sim-echo'.",
    ),
    (
        "judge",
        [("request_limits", {"max_output_tokens": 5})],
        {"max_tokens": 6},
        'Refused: policy "request_limits policy" allows 5 output tokens over all choices, and this request asks for 6.',
    ),
    (
        "inspect",
        [("guardrail", {"detectors": {"credit_card": "block"}})],
        {"text": f"Charge {CARD} now"},
        (
            r'Refused: policy "guardrail policy" blocks credit card numbers in requests, and one was found, at '
            r"messages\[0\]\.content\."
        ),
    ),
    (
        "inspect",
        [("guardrail", {"detectors": {"email": "block"}})],
        {"messages": PICTURE},
        'Refused: policy "guardrail policy" scans requests, and this one has content that cannot be scanned as text.',
    ),
    (
        "deliver",
        [("guardrail", {"detectors": {"email": "block"}, "direction": "output"})],
        {"text": "jane.doe@example.org", "stream": True},
        (
            r'Withheld: simulated \(sim-echo\) answered, but policy "guardrail policy" blocks e-mail addresses in '
            r"answers, and one was found, at choices\[0\]\.content\. The call cost \$0\.\d+\."
        ),
    ),
    ("judge", [], {"model": "no-such"}, "Refused: the model 'no-such' does not exist or no provider is set up for it."),
    ("parse", [], {"n": -1}, "Refused: the request cannot be served as it is. .+"),
    (
        "call",
        [],
        {"model": "sim-error-500"},
        r"Failed: simulated \(sim-error-500\) failed \(HTTP 500\)\. .+ Nothing was charged\.",
    ),
    (
        "call",
        [],
        {"model": "sim-broken-2", "stream": True},
        r"Failed: simulated \(sim-broken-2\) broke off in the middle of its answer\. .+ Charged is .+\.",
    ),
]


@pytest.mark.parametrize(("stage", "policies", "fields", "said"), CASES)
def test_each_ending_is_explained_by_a_sentence_and_by_the_stage_it_came_in(
    tmp_path: Path, stage: str, policies: list[tuple[str, dict[str, Any]]], fields: dict[str, Any], said: str
) -> None:
    house = House(policies)
    record = record_of(house, tmp_path, **fields)
    told = why(record, auditor(house))
    assert re.fullmatch(said, told.sentence), told.sentence
    assert told.ended_in == stage
    reached = list(STAGES)[: list(STAGES).index(stage) + 1]
    assert [s.stage for s in told.stages if s.outcome != "not reached"] == reached
    began = [s.began_us for s in told.stages if s.began_us is not None]
    assert began == sorted(began)
    assert len(began) == len(reached)
    assert CARD not in json.dumps(asdict(told))
    assert "jane.doe" not in json.dumps(asdict(told))
    record.path = None  # as it was recorded before the path was
    old = why(record, nobody())
    assert (old.sentence, old.ended_in) == (told.sentence, stage)
    assert {s.began_us for s in old.stages} == {None}


def test_stages_are_named_for_the_methods_of_the_pipeline() -> None:
    assert all(callable(getattr(Pipeline, f"_{stage}")) for stage in STAGES)


def test_the_policies_of_a_record_say_what_they_said_then(tmp_path: Path) -> None:
    house = House([("rate_limit", {"requests": 5, "per": "minute"})])
    record = record_of(house, tmp_path)
    policy = Policy.objects.get(organization=house.organization, kind="rate_limit")
    policy.config = {"requests": 1, "per": "day"}
    policy.save()
    told = {applied.kind: applied for applied in why(record, auditor(house)).policies}
    assert (told["rate_limit"].version, told["rate_limit"].says) == (1, "At most 5 requests a minute.")
    assert {applied.says for applied in why(record, nobody()).policies} == {None}


def test_a_policy_in_shadow_is_said_to_have_spared_the_request(tmp_path: Path) -> None:
    house = House()
    house.add("rate_limit", {"tokens": 1, "per": "hour"}, mode="shadow")
    house.add("request_limits", {"max_output_tokens": 1}, mode="shadow")
    house.add("cost_cap", {"limit_usd": "0.000001", "per": "day"}, mode="shadow")
    house.add("guardrail", {"detectors": {"email": "block"}, "direction": "input"}, mode="shadow")
    record = record_of(house, tmp_path, text="jane.doe@example.org", max_tokens=5)
    assert record.status == Status.SUCCESS
    said = "\n".join(notes(record))
    for name in ("rate_limit", "request_limits", "cost_cap", "guardrail"):
        assert f'In shadow: policy "{name} policy" ' in said
    assert {p.part for p in why(record, nobody()).policies if p.kind in ("rate_limit", "request_limits")} == {
        "would have refused"
    }


def test_what_a_stream_was_held_for_and_what_was_cut_is_said(tmp_path: Path) -> None:
    house = House(
        [
            ("guardrail", {"detectors": {"email": "redact"}}),
            ("cost_cap", {"limit_usd": "0.0005", "per": "day", "fit": "clamp"}),
        ]
    )
    record = record_of(house, tmp_path, model="sim-usage-10-500", text="jane.doe@example.org", stream=True)
    told = why(record, auditor(house))
    assert told.stream.mode == "held"
    assert any("took e-mail addresses (1 time) in the request out" in note for note in told.notes)
    assert any("was limited to that" in note for note in told.notes)
    assert told.findings[0].at == ["messages[0].content"]
    relayed = why(record_of(House(), tmp_path, stream=True), nobody())
    assert relayed.stream.mode == "relayed"


ENDINGS: list[tuple[dict[str, Any], str]] = [
    ({"status": "cancelled", "http_status": 499}, "The client left before a provider was called. Nothing was charged."),
    (
        {"status": "cancelled", "http_status": 200, "attempts": [{"status": 200}]},
        "The answer was complete, but the client had left by then: 0 input tokens and 0 output tokens, $0.",
    ),
    (
        {"status": "cancelled", "http_status": 200, "error_code": "CLIENT_CLOSED", "attempts": [{"status": 200}]},
        (
            "The client left before the answer's end. Charged is what had been used by then: 0 input tokens and "
            "0 output tokens, $0."
        ),
    ),
    (
        {"status": "interrupted", "http_status": 0, "cost_nano_usd": 5 * 10**7},
        (
            "The gateway's process ended before it recorded how this request ended. Nobody knows what the provider "
            "did, so the most that it can have cost is charged: $0.05."
        ),
    ),
    (
        {"status": "interrupted", "http_status": 499, "attempts": [{}], "usage_source": "worst_case"},
        (
            "The server was stopping before the answer's end. Charged is the most that it can have cost, since nobody "
            "knows what it used: $0."
        ),
    ),
    (
        {"status": "interrupted", "http_status": 499},
        "The server was stopping before a provider was called. Nothing was charged.",
    ),
    (
        {"error_code": "SERVICE_UNAVAILABLE", "error_message": "Rate limits cannot be checked right now."},
        "Not sent: rate limits cannot be checked right now.",
    ),
    (
        {"error_code": "INTERNAL_ERROR"},
        "Not sent: the gateway failed, by a defect of its own. Its log has the cause, under the request's id.",
    ),
    (
        {
            "error_code": "PROVIDER_TIMEOUT",
            "error_message": "The provider did not answer in time.",
            "provider": "openai",
            "upstream_model": "gpt-4o",
            "attempts": [{"provider": "azure", "fault": "connect"}, {"provider": "openai", "fault": "timeout"}],
            "cost_nano_usd": 10**9,
            "usage_source": "worst_case",
        },
        (
            "Failed: openai (gpt-4o) did not answer in time, and so had 1 target before it. The provider did not "
            "answer in time. Charged is the most that it can have cost, since nobody knows what it used: $1."
        ),
    ),
]


@pytest.mark.parametrize(("columns", "said"), ENDINGS)
def test_what_ended_otherwise_is_explained_too(columns: dict[str, Any], said: str) -> None:
    record = RequestRecord(**{"status": "error", "http_status": 500, **columns})
    assert sentence(record) == said
    assert ended_in(record) in STAGES


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_of_a_provider_has_its_words(fault: Fault) -> None:
    attempts = [{"provider": "azure", "model": "m", "fault": fault.value, "worst_case_nano_usd": 10}, {"status": 200}]
    record = RequestRecord(status="success", provider="openai", attempts=attempts, degraded=["rate_limits"])
    assert "azure (m) " in sentence(record)
    assert fault.value not in {note.removesuffix(".").split()[-1] for note in notes(record)} - {"failed"}
    assert any("its worst case is charged: $0.00000001" in note for note in notes(record))
    assert any("Redis did not answer" in note for note in notes(record))


def test_the_platforms_budget_is_named_and_what_others_spent_is_not() -> None:
    message = "Policy 'All of us' does not leave enough for this request, which could cost 0.12 USD."
    cap = {"policy_id": "p", "policy": "All of us", "kind": "cost_cap", "per": "day", "limit_nano_usd": 10**9}
    reason = {"code": "BUDGET_EXCEEDED", "message": message, "policy": "All of us", "policy_id": "p", "enforced": True}
    record = RequestRecord(
        status="blocked", error_code="BUDGET_EXCEEDED", error_message=message, limits=[cap], reasons=[reason]
    )
    assert sentence(record) == (
        'Refused: policy "All of us" does not leave enough for this request, which could cost 0.12 USD.'
    )


def test_what_was_set_aside_for_others_is_told_of_a_budget() -> None:
    asked = {"input_times_million": str(12 * 10**13), "output_rate": "0", "output_tokens": 0}
    cap = {"policy_id": "p", "policy": NAMED, "kind": "cost_cap", "per": "day", "limit_nano_usd": 50 * 10**9}
    cap |= {"spent_nano_usd": 49_980_000_000, "reserved_nano_usd": 0, "asked": asked}
    reason = {"code": "BUDGET_EXCEEDED", "message": "", "policy": NAMED, "policy_id": "p", "enforced": True}
    record = RequestRecord(status="blocked", error_code="BUDGET_EXCEEDED", limits=[cap], reasons=[reason])
    said = 'Refused: policy "Team budget" allows $50 a day; $49.98 was spent'
    assert sentence(record) == f"{said} and this request could have cost $0.12."
    cap["reserved_nano_usd"] = 10**7
    assert sentence(record) == (
        f"{said}, $0.01 was set aside for requests under way, and this request could have cost $0.12."
    )
