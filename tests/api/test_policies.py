from typing import Any

import pytest

from apps.policies.models import Policy
from tests.api.cast import Cast, error_of

CONFIGS = {
    "rate_limit": {"requests": 10, "per": "minute", "concurrent": 2},
    "cost_cap": {"limit_usd": "12.50", "per": "day", "hard": True, "fit": "clamp"},
    "model_restriction": {"allow": ["gpt-*"], "deny": ["gpt-4*"]},
    "guardrail": {"detectors": {"email": "redact", "secret": "block"}, "direction": "both"},
    "request_limits": {"max_input_tokens": 100, "max_output_tokens": 9, "features": {"tools": False}},
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
def test_each_kind_is_kept_as_it_was_written(cast: Cast, kind: str, mode: str) -> None:
    body = {"organization": str(cast.organization.id), "kind": kind, "mode": mode, "config": CONFIGS[kind]}
    made = cast.admin.made("policies", body)
    assert {name: made[name] for name in body} == body
    assert made["version"] == 1


def test_what_is_left_out_has_a_readable_name_and_is_enforced(cast: Cast) -> None:
    body = {"application": str(cast.application.id), "kind": "rate_limit", "config": CONFIGS["rate_limit"]}
    made = cast.admin.made("policies", body)
    assert made["name"] == "Rate limit of support bot"
    assert made["mode"] == "enforce"
    assert made["organization"] == str(cast.organization.id)


def test_a_policy_stands_on_each_kind_of_scope(cast: Cast) -> None:
    key = cast.admin.made("keys", {"application": str(cast.application.id), "name": "k"})
    for name, scope in {
        "application": str(cast.application.id),
        "user": str(cast.developer.user.id),
        "key": key["id"],
    }.items():
        body = {
            "organization": str(cast.organization.id),
            name: scope,
            "kind": "cost_cap",
            "config": CONFIGS["cost_cap"],
        }
        made = cast.admin.made("policies", body)
        assert made[name] == scope
        version = cast.admin.get(f"policies/{made['id']}/versions").json()["results"][0]
        assert (version["level"], version["scope_id"]) == (name, scope)


@pytest.mark.parametrize(
    ("kind", "config", "param"),
    [
        ("cost_cap", {"limit_usd": "a lot", "per": "day"}, "config.limit_usd"),
        ("cost_cap", {"limit_usd": 12.5, "per": "day"}, "config.limit_usd"),
        ("cost_cap", {"limit_usd": "-1", "per": "day"}, "config.limit_usd"),
        ("cost_cap", {"limit_usd": "1", "per": "hour"}, "config.per"),
        ("cost_cap", {"limit_usd": "1", "per": ["day"]}, "config.per"),
        ("cost_cap", {"limit_usd": "1", "per": "day", "hard": "yes"}, "config.hard"),
        ("cost_cap", {"limit_usd": "1", "per": "day", "colour": "red"}, "config.colour"),
        ("rate_limit", {}, "config.requests"),
        ("rate_limit", {"requests": 0, "per": "minute"}, "config.requests"),
        ("rate_limit", {"requests": True, "per": "minute"}, "config.requests"),
        ("rate_limit", {"requests": 1}, "config.per"),
        ("model_restriction", {}, "config.allow"),
        ("model_restriction", {"allow": "gpt-*"}, "config.allow"),
        ("model_restriction", {"allow": [1]}, "config.allow"),
        ("guardrail", {"detectors": {"email": "explode"}}, "config.email"),
        ("guardrail", {"detectors": {"shoe_size": "block"}}, "config.detectors"),
        ("request_limits", {}, "config.max_input_tokens"),
        ("request_limits", {"max_output_tokens": -1}, "config.max_output_tokens"),
        ("request_limits", {"max_output_tokens": 10**12}, "config.max_output_tokens"),
        ("request_limits", {"features": {"tools": 1}}, "config.tools"),
        ("model_restriction", {"allow": ["gpt\x07"]}, "config.allow"),
        ("guardrail", [], "config"),
        ("guardrail", "email", "config"),
        ("guardrail", None, "config"),
        ("rocket", {}, "kind"),
        (7, {}, "kind"),
        ({}, {}, "kind"),
        (None, {}, "kind"),
    ],
)
def test_a_bad_policy_is_refused_by_the_fields_name(cast: Cast, kind: Any, config: Any, param: str) -> None:
    body = {"organization": str(cast.organization.id), "kind": kind, "config": config}
    error = error_of(cast.admin.post("policies", body), 400, "INVALID_REQUEST")
    assert error["param"] == param
    assert list(error["details"]) == [param]
    assert not Policy.objects.filter(organization=cast.organization).exists()


def test_a_changed_kind_needs_a_configuration_of_that_kind(cast: Cast) -> None:
    body = {"organization": str(cast.organization.id), "kind": "rate_limit", "config": CONFIGS["rate_limit"]}
    made = cast.admin.made("policies", body)
    answer = cast.admin.patch(f"policies/{made['id']}", {"kind": "model_restriction"})
    assert error_of(answer, 400, "INVALID_REQUEST")["param"].startswith("config.")
    both = {"kind": "model_restriction", "config": {"allow": ["*"]}}
    assert cast.admin.patch(f"policies/{made['id']}", both).status_code == 200


def test_a_policy_stands_on_one_scope(cast: Cast) -> None:
    body = {
        "organization": str(cast.organization.id),
        "application": str(cast.application.id),
        "user": str(cast.developer.user.id),
        "kind": "rate_limit",
        "config": CONFIGS["rate_limit"],
    }
    assert error_of(cast.admin.post("policies", body), 400, "INVALID_REQUEST")["param"] == "user"


@pytest.mark.parametrize("caller", ["admin", "superadmin"])
def test_a_policy_does_not_reach_into_another_organization(cast: Cast, caller: str) -> None:
    theirs = cast.outsider.made("keys", {"application": str(cast.elsewheres_application.id), "name": "k"})
    for name, scope in {
        "application": str(cast.elsewheres_application.id),
        "user": str(cast.outsider.user.id),
        "key": theirs["id"],
    }.items():
        body = {"organization": str(cast.organization.id), name: scope, "kind": "guardrail"}
        answer = cast.by_role(caller).post("policies", body | {"config": CONFIGS["guardrail"]})
        assert error_of(answer, 400, "INVALID_REQUEST")["param"] == name


def test_every_change_publishes_a_version(cast: Cast) -> None:
    body = {"organization": str(cast.organization.id), "kind": "rate_limit", "config": CONFIGS["rate_limit"]}
    made = cast.admin.made("policies", body)
    cast.admin.patch(f"policies/{made['id']}", {"config": {"concurrent": 3}})
    cast.admin.patch(f"policies/{made['id']}", {"mode": "off"})
    page = cast.developer.get(f"policies/{made['id']}/versions", limit=2).json()
    assert [(one["version"], one["mode"]) for one in page["results"]] == [(3, "off"), (2, "enforce")]
    rest = cast.developer.call("GET", page["next"].removeprefix("http://testserver")).json()
    assert [one["config"] for one in rest["results"]] == [CONFIGS["rate_limit"]]
    assert rest["next"] is None
    error_of(cast.outsider.get(f"policies/{made['id']}/versions"), 404, "NOT_FOUND")
    error_of(cast.admin.get(f"policies/{made['id']}/versions", colour="red"), 400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("2.50", "2.50"), ("0.000000001", "0.000000001"), ("3", "3.00"), (4, "4.00"), ("1e2", "100.00")],
)
def test_a_price_is_exact(cast: Cast, amount: Any, shown: str) -> None:
    body = {"model": "m", "input_usd_per_million": amount, "output_usd_per_million": "0"}
    made = cast.superadmin.made("prices", body | {"cached_input_usd_per_million": amount})
    assert made["input_usd_per_million"] == made["cached_input_usd_per_million"] == shown
    assert made["output_usd_per_million"] == "0.00"
    assert cast.developer.get(f"prices/{made['id']}").json() == made
    assert cast.superadmin.delete(f"prices/{made['id']}").status_code == 204


@pytest.mark.parametrize("amount", ["", "-1", "NaN", "Infinity", "1e99", "0.0000000001", 1.5, True, None, [], {}, "x"])
def test_a_price_that_is_no_amount_is_refused(cast: Cast, amount: Any) -> None:
    body = {"model": "m", "input_usd_per_million": amount, "output_usd_per_million": "1"}
    assert error_of(cast.superadmin.post("prices", body), 400, "INVALID_REQUEST")["param"] == "input_usd_per_million"


def rate_limit(cast: Cast, **fields: Any) -> dict[str, Any]:
    body = {"organization": str(cast.organization.id), "kind": "rate_limit", "config": CONFIGS["rate_limit"]}
    return body | fields


def test_models_and_dates_are_kept_and_published(cast: Cast) -> None:
    terms = {"models": ["gpt-*"], "valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-02-01T00:00:00Z"}
    made = cast.admin.made("policies", rate_limit(cast, **terms))
    version = cast.admin.get(f"policies/{made['id']}/versions").json()["results"][0]
    for said in (made, version):
        assert {name: said[name] for name in terms} == terms


def test_a_policy_without_models_and_dates_is_for_every_model_at_any_time(cast: Cast) -> None:
    made = cast.admin.made("policies", rate_limit(cast))
    assert (made["models"], made["valid_from"], made["valid_until"]) == ([], None, None)


@pytest.mark.parametrize(
    ("terms", "param"),
    [
        ({"models": "gpt-*"}, "models"),
        ({"models": None}, "models"),
        ({"models": [""]}, "models"),
        ({"models": ["a\nb"]}, "models"),
        ({"models": [1]}, "models"),
        ({"valid_from": "tomorrow"}, "valid_from"),
        ({"valid_from": 5}, "valid_from"),
        ({"valid_from": "2026-01-02T00:00:00Z", "valid_until": "2026-01-01T00:00:00Z"}, "valid_until"),
        ({"valid_from": "2026-01-02T00:00:00Z", "valid_until": "2026-01-02T01:00:00+01:00"}, "valid_until"),
    ],
)
def test_models_and_dates_that_cannot_be_are_refused_by_the_fields_name(
    cast: Cast, terms: dict[str, Any], param: str
) -> None:
    error = error_of(cast.admin.post("policies", rate_limit(cast, **terms)), 400, "INVALID_REQUEST")
    assert error["param"] == param


def test_an_end_is_held_against_the_beginning_that_is_stored(cast: Cast) -> None:
    made = cast.admin.made("policies", rate_limit(cast, valid_from="2026-03-01T00:00:00Z"))
    answer = cast.admin.patch(f"policies/{made['id']}", {"valid_until": "2026-02-01T00:00:00Z"})
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "valid_until"


def test_a_name_that_nobody_serves_is_warned_of_and_allowed(cast: Cast) -> None:
    body = rate_limit(cast, kind="model_restriction", config={"allow": ["gtp-4o", "sim-echo", "claude-*"]})
    made = cast.admin.made("policies", body | {"models": ["sim-ehco", "sim-*"]})
    assert [(warning["param"], warning["message"]) for warning in made["warnings"]] == [
        ("config.allow", "No route and no provider serves the model 'gtp-4o' yet."),
        ("models", "No route and no provider serves the model 'sim-ehco' yet."),
    ]
