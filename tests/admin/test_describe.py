"""A policy in one sentence."""

from typing import Any

import pytest

from apps.policies.describe import DETECTOR_NAMES, describe
from apps.policies.engine.kinds import DETECTORS


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        ("model_restriction", {"allow": ["*"]}, "Allows every model."),
        ("model_restriction", {"allow": ["a", "b"], "deny": ["c"]}, "Allows a, b and denies c."),
        ("model_restriction", {"allow": list("abcdefg")}, "Allows a, b, c, d, e and 2 more."),
        ("model_restriction", {"deny": []}, "Denies nothing."),
        ("rate_limit", {"requests": 1, "per": "second"}, "At most 1 request a second."),
        (
            "rate_limit",
            {"requests": 1000, "tokens": 2, "per": "day", "concurrent": 3},
            "At most 1,000 requests and 2 tokens a day, and 3 at the same time.",
        ),
        ("rate_limit", {"concurrent": 3}, "At most 3 at the same time."),
        (
            "cost_cap",
            {"limit_usd": "12.50", "per": "week"},
            "At most 12.50 USD a week; a request that could cost more than what is left is refused.",
        ),
        (
            "cost_cap",
            {"limit_usd": "1", "per": "total", "fit": "clamp"},
            (
                "At most 1 USD in total; a request that could cost more than what is left is given a shorter answer, "
                "if that fits."
            ),
        ),
        (
            "cost_cap",
            {"limit_usd": "1", "per": "day", "hard": False},
            "Watches a budget of 1 USD a day; requests above it are recorded, not refused.",
        ),
        (
            "guardrail",
            {"detectors": {"email": "redact", "secret": "block", "phone": "redact"}, "direction": "output"},
            "Blocks secrets, redacts e-mail addresses and phone numbers in answers.",
        ),
        ("guardrail", {"detectors": {"injection": "flag"}}, "Flags prompt injections in requests and answers."),
        (
            "guardrail",
            {"detectors": {"secret": "block"}, "direction": "input", "unscannable": "allow"},
            "Blocks secrets in requests. Pictures and files pass unread.",
        ),
        (
            "request_limits",
            {"max_input_tokens": 4000, "max_output_tokens": 500, "features": {"tools": False, "n": False}},
            "At most 4,000 input tokens and 500 output tokens in a request, no tools and no several choices (n).",
        ),
        ("request_limits", {"features": {"images": False}}, "No images."),
    ],
)
def test_a_policy_is_told_in_one_sentence(kind: str, config: dict[str, Any], sentence: str) -> None:
    assert describe(kind, config) == sentence


@pytest.mark.parametrize(("kind", "config"), [("rate_limit", {}), ("cost_cap", None), ("horoscope", {})])
def test_a_broken_policy_is_told_as_broken(kind: str, config: Any) -> None:
    assert describe(kind, config).startswith("Broken, and therefore denies every request: ")


def test_every_detector_has_a_name_for_people() -> None:
    assert set(DETECTOR_NAMES) == set(DETECTORS)
