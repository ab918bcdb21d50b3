"""Which configurations are policies and which are refused, with the field named."""

from datetime import UTC, datetime
from typing import Any

import pytest

from apps.policies.engine.kinds import (
    ConfigError,
    CostCap,
    Feature,
    Fit,
    Per,
    RateLimitRule,
    RequestLimits,
    parse_config,
    parse_terms,
)


def test_a_cost_cap_is_read_to_the_nano_dollar() -> None:
    config = {"limit_usd": "12.50", "per": "day", "hard": True, "fit": "clamp"}
    assert parse_config("cost_cap", config) == CostCap(12_500_000_000, Per.DAY, hard=True, fit=Fit.CLAMP)


def test_a_cost_cap_is_hard_and_refuses_unless_it_says_otherwise() -> None:
    assert parse_config("cost_cap", {"limit_usd": "0.000000001", "per": "total"}) == CostCap(
        1, Per.TOTAL, hard=True, fit=Fit.REFUSE
    )


def test_concurrency_alone_needs_no_window() -> None:
    assert parse_config("rate_limit", {"concurrent": 3}) == RateLimitRule(None, None, 3, None)


def test_request_limits_forbid_the_features_that_are_said_to_be_false_and_no_other() -> None:
    config = {"max_output_tokens": 500, "features": {"tools": False, "streaming": True}}
    assert parse_config("request_limits", config) == RequestLimits(None, 500, frozenset({Feature.TOOLS}))


BAD: list[tuple[str, Any, str]] = [
    ("rate_limit", {}, "requests"),
    ("rate_limit", {"requests": 5}, "per"),
    ("rate_limit", {"requests": 5, "per": "fortnight"}, "per"),
    ("rate_limit", {"requests": 5, "per": ["minute"]}, "per"),
    ("rate_limit", {"requests": 0, "per": "minute"}, "requests"),
    ("rate_limit", {"requests": -1, "per": "minute"}, "requests"),
    ("rate_limit", {"requests": True, "per": "minute"}, "requests"),
    ("rate_limit", {"requests": 1.5, "per": "minute"}, "requests"),
    ("rate_limit", {"tokens": "many", "per": "minute"}, "tokens"),
    ("rate_limit", {"tokens": 10**13, "per": "minute"}, "tokens"),
    ("rate_limit", {"concurrent": 0}, "concurrent"),
    ("rate_limit", {"requests": 5, "per": "minute", "burst": 3}, "burst"),
    ("cost_cap", {"per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "-1", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "NaN", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "Infinity", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "1e400", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "1e-12", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "9" * 5000, "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": 12.5, "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": True, "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "twelve", "per": "day"}, "limit_usd"),
    ("cost_cap", {"limit_usd": "1"}, "per"),
    ("cost_cap", {"limit_usd": "1", "per": "year"}, "per"),
    ("cost_cap", {"limit_usd": "1", "per": "day", "hard": "yes"}, "hard"),
    ("cost_cap", {"limit_usd": "1", "per": "day", "fit": "squeeze"}, "fit"),
    ("model_restriction", {}, "allow"),
    ("model_restriction", {"allow": []}, "allow"),
    ("model_restriction", {"allow": "sim-*"}, "allow"),
    ("model_restriction", {"allow": [""]}, "allow"),
    ("model_restriction", {"allow": [7]}, "allow"),
    ("model_restriction", {"deny": ["x" * 257]}, "deny"),
    ("model_restriction", {"deny": ["x"] * 1001}, "deny"),
    ("guardrail", {}, "detectors"),
    ("guardrail", {"detectors": {}}, "detectors"),
    ("guardrail", {"detectors": {"telepathy": "block"}}, "detectors"),
    ("guardrail", {"detectors": {"email": "eat"}}, "email"),
    ("guardrail", {"detectors": {"email": "block"}, "direction": "sideways"}, "direction"),
    ("model_restriction", {"allow": ["gpt\x00"]}, "allow"),
    ("model_restriction", {"allow": ["gpt-4o\n"]}, "allow"),
    ("model_restriction", {"allow": [" gpt-4o"]}, "allow"),
    ("model_restriction", {"deny": ["   "]}, "deny"),
    ("request_limits", {}, "max_input_tokens"),
    ("request_limits", {"features": {}}, "max_input_tokens"),
    ("request_limits", {"features": {"tools": True}}, "max_input_tokens"),
    ("request_limits", {"max_input_tokens": 0}, "max_input_tokens"),
    ("request_limits", {"max_input_tokens": -1}, "max_input_tokens"),
    ("request_limits", {"max_output_tokens": 10**9 + 1}, "max_output_tokens"),
    ("request_limits", {"max_output_tokens": "5"}, "max_output_tokens"),
    ("request_limits", {"max_output_tokens": 1.5}, "max_output_tokens"),
    ("request_limits", {"features": ["tools"]}, "features"),
    ("request_limits", {"features": {"telepathy": False}}, "features"),
    ("request_limits", {"features": {"tools": "no"}}, "tools"),
    ("request_limits", {"max_tokens": 5}, "max_tokens"),
    ("quota", {}, ""),
    ("cost_cap", [], ""),
    ("cost_cap", None, ""),
]


@pytest.mark.parametrize(("kind", "config", "field"), BAD)
def test_what_is_not_of_its_kind_is_refused_and_the_field_named(kind: str, config: Any, field: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_config(kind, config)
    assert refusal.value.field == field


DAY, NEXT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("models", "since", "until", "field"),
    [
        ("gpt-*", None, None, "models"),
        (None, None, None, "models"),
        ({"gpt": 1}, None, None, "models"),
        ([""], None, None, "models"),
        (["gpt\x07"], None, None, "models"),
        ([7], None, None, "models"),
        (["m"] * 1001, None, None, "models"),
        ([], NEXT, DAY, "valid_until"),
        ([], DAY, DAY, "valid_until"),
        ([], DAY.replace(tzinfo=None), None, "valid_from"),
    ],
)
def test_models_and_dates_that_cannot_be_are_refused_and_the_field_named(
    models: Any, since: Any, until: Any, field: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_terms(models, since, until)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"per": "rolling"}, "span_hours"),
        ({"per": "rolling", "span_hours": 0}, "span_hours"),
        ({"per": "rolling", "span_hours": True}, "span_hours"),
        ({"per": "rolling", "span_hours": 10**6}, "span_hours"),
        ({"per": "day", "span_hours": 24}, "span_hours"),
        ({"per": "day", "alert_at": 50}, "alert_at"),
        ({"per": "day", "alert_at": [0]}, "alert_at"),
        ({"per": "day", "alert_at": [50.5]}, "alert_at"),
        ({"per": "day", "alert_at": [1001]}, "alert_at"),
    ],
)
def test_a_span_or_a_percent_that_is_none_is_refused_by_its_name(terms: dict, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config("cost_cap", {"limit_usd": "1", **terms})
    assert refused.value.field == field
