"""What one request may ask for."""

from typing import Any
from uuid import uuid4

import pytest

from apps.policies.engine.kinds import Feature
from apps.policies.engine.policy import Level, Mode, Policy, read_rule
from apps.policies.engine.request import Asked, asked_from_json, output_allowance, request_reasons


def limit(config: dict[str, Any], mode: Mode = Mode.ENFORCE) -> tuple[Policy, Any]:
    rule = read_rule("request_limits", config)
    policy = Policy(uuid4(), 1, "Small", "request_limits", mode, Level.PLATFORM, None, None, rule)
    return policy, rule


def asked(**said: Any) -> Asked:
    return Asked(**{"input_tokens": 100, "output_tokens": None, "choices": 1, "features": frozenset(), **said})


@pytest.mark.parametrize(
    ("config", "said", "words"),
    [
        ({"max_input_tokens": 99}, {}, "allows 99 input tokens, and this request may have 100."),
        ({"max_input_tokens": 10**9}, {"input_tokens": None}, "cannot be bounded"),
        ({"max_output_tokens": 50}, {"output_tokens": 51}, "allows 50 output tokens over all choices"),
        ({"max_output_tokens": 3}, {"choices": 4}, "asks for 4."),
        *(({"features": {name.value: False}}, {"features": frozenset({name})}, "does not allow") for name in Feature),
    ],
)
def test_what_is_beyond_a_limit_is_refused_by_the_policys_name(
    config: dict[str, Any], said: dict[str, Any], words: str
) -> None:
    (reason,) = request_reasons([limit(config)], asked(**said))
    assert (reason.code, reason.enforced) == ("FORBIDDEN", True)
    assert reason.message.startswith("Policy 'Small' ")
    assert words in reason.message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_input_tokens": 100}, {}),
        ({"max_output_tokens": 50}, {}),
        ({"max_output_tokens": 50}, {"output_tokens": 50}),
        ({"max_output_tokens": 50}, {"input_tokens": None}),
        ({"features": {"tools": False}}, {"features": frozenset({Feature.IMAGES})}),
        ({"max_input_tokens": 100, "features": {"tools": True}}, {"features": frozenset({Feature.TOOLS})}),
    ],
)
def test_what_is_within_a_limit_is_allowed(config: dict[str, Any], said: dict[str, Any]) -> None:
    assert request_reasons([limit(config)], asked(**said)) == ()


def test_the_strictest_enforced_limit_is_what_a_request_without_a_number_gets() -> None:
    limits = [limit({"max_output_tokens": 50}), limit({"max_output_tokens": 70})]
    limits.append(limit({"max_output_tokens": 9}, Mode.SHADOW))
    assert output_allowance(limits, asked()) == 50
    assert output_allowance(limits, asked(output_tokens=20)) is None
    assert output_allowance(limits[2:], asked()) is None


def test_a_limit_in_shadow_only_says_so() -> None:
    (reason,) = request_reasons([limit({"max_input_tokens": 5}, Mode.SHADOW)], asked())
    assert not reason.enforced


def test_what_was_asked_is_read_from_a_record_as_it_was() -> None:
    was = asked(features=frozenset({Feature.N, Feature.TOOLS}), choices=2)
    assert asked_from_json(was.as_json()) == was
