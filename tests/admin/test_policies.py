"""Policies: a form for each kind, which says what is wrong where it is wrong."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.audit.models import ChangeRecord
from apps.policies.models import Policy, PolicyVersion
from tests.admin.cast import CAP, Cast, address, errors, filled, made, unique

DAY, NEXT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
KINDS = ("model_restriction", "rate_limit", "cost_cap", "request_limits", "guardrail")


def submit(client: Client, cast: Cast, kind: str, **changes: Any) -> Any:
    form = {"name": unique("policy"), "applies_to": "organization", "organization": str(cast.home.organization.pk)}
    return filled(client, f"{address(Policy, 'add')}?kind={kind}", **(form | changes))


def made_policy(cast: Cast, kind: str, **changes: Any) -> Policy:
    name = unique("policy")
    response = submit(cast.browser("admin"), cast, kind, name=name, **changes)
    assert response.status_code == 302, errors(response)
    return Policy.objects.get(name=name)


def test_the_kind_is_chosen_first(onlookers: Cast) -> None:
    response = onlookers.browser("admin").get(address(Policy, "add"))
    templates, *kinds = [card["link"] for card in response.context["cards"]]
    assert templates == reverse("admin:policies_policy_templates", args=[onlookers.home.organization.pk])
    assert kinds == [f"?kind={kind}" for kind in KINDS]


@pytest.mark.parametrize(
    ("kind", "form", "config"),
    [
        ("model_restriction", {"allow": " gpt-4o*\n\nclaude-* \r\n"}, {"allow": ["gpt-4o*", "claude-*"]}),
        ("model_restriction", {"allow": "*", "deny": "o1"}, {"allow": ["*"], "deny": ["o1"]}),
        ("rate_limit", {"requests": "10", "per": "minute"}, {"requests": 10, "per": "minute"}),
        ("rate_limit", {"concurrent": "3"}, {"concurrent": 3}),
        (
            "cost_cap",
            {"limit_usd": "12.50", "per": "day", "hard": "on", "fit": "clamp"},
            {"limit_usd": "12.50", "per": "day", "hard": True, "fit": "clamp"},
        ),
        (
            "cost_cap",
            {"limit_usd": "1e2", "per": "total", "hard": None, "fit": "refuse"},
            {"limit_usd": "100", "per": "total", "hard": False, "fit": "refuse"},
        ),
        (
            "guardrail",
            {"detector_email": "redact", "detector_secret": "block", "direction": "input"},
            {"detectors": {"email": "redact", "secret": "block"}, "direction": "input"},
        ),
        ("request_limits", {"max_input_tokens": "100"}, {"max_input_tokens": 100}),
        (
            "request_limits",
            {"max_output_tokens": "9", "allow_tools": None, "allow_n": None},
            {"max_output_tokens": 9, "features": {"tools": False, "n": False}},
        ),
    ],
)
def test_a_form_becomes_the_configuration_of_its_kind(
    cast: Cast, kind: str, form: dict[str, Any], config: dict[str, Any]
) -> None:
    policy = made_policy(cast, kind, **form)
    assert (policy.kind, policy.config, policy.mode) == (kind, config, "enforce")
    assert policy.organization == cast.home.organization


@pytest.mark.parametrize(
    ("kind", "form", "field"),
    [
        ("model_restriction", {}, "allow"),
        ("model_restriction", {"allow": "x" * 257}, "allow"),
        ("model_restriction", {"allow": "*", "deny": "x" * 257}, "deny"),
        ("rate_limit", {}, "requests"),
        ("rate_limit", {"requests": "10"}, "per"),
        ("rate_limit", {"requests": "many", "per": "minute"}, "requests"),
        ("rate_limit", {"requests": "0", "per": "minute"}, "requests"),
        ("rate_limit", {"tokens": "-5", "per": "minute"}, "tokens"),
        ("rate_limit", {"requests": "1", "per": "fortnight"}, "per"),
        ("rate_limit", {"concurrent": "1.5"}, "concurrent"),
        ("cost_cap", {"limit_usd": ""}, "limit_usd"),
        ("cost_cap", {"limit_usd": "NaN"}, "limit_usd"),
        ("cost_cap", {"limit_usd": "-1"}, "limit_usd"),
        ("cost_cap", {"limit_usd": "0.0000000001"}, "limit_usd"),
        ("cost_cap", {"limit_usd": "99999999999"}, "limit_usd"),
        ("cost_cap", {"limit_usd": "5", "per": "year"}, "per"),
        ("guardrail", {}, "detector_email"),
        ("guardrail", {"detector_phone": "shred"}, "detector_phone"),
        ("guardrail", {"detector_email": "block", "direction": "sideways"}, "direction"),
        ("request_limits", {}, "max_input_tokens"),
        ("request_limits", {"max_input_tokens": "-1"}, "max_input_tokens"),
        ("request_limits", {"max_output_tokens": "99999999999"}, "max_output_tokens"),
        ("rate_limit", {"concurrent": "1", "models": "x" * 257}, "models"),
        ("rate_limit", {"concurrent": "1", "models": "gpt\x07"}, "models"),
        ("rate_limit", {"concurrent": "1", "valid_from_0": "yesterday"}, "valid_from"),
        (
            "rate_limit",
            {
                "concurrent": "1",
                "valid_from_0": "2026-02-01",
                "valid_from_1": "00:00:00",
                "valid_until_0": "2026-01-01",
                "valid_until_1": "00:00:00",
            },
            "valid_until",
        ),
    ],
)
def test_nonsense_is_refused_at_the_field(onlookers: Cast, kind: str, form: dict[str, Any], field: str) -> None:
    assert field in errors(submit(onlookers.browser("admin"), onlookers, kind, **form))


@pytest.mark.parametrize(
    ("level", "field"),
    [("organization", "organization"), ("application", "application"), ("user", "user"), ("key", "api_key")],
)
def test_a_scope_without_its_target_is_refused_at_the_field(onlookers: Cast, level: str, field: str) -> None:
    response = submit(
        onlookers.browser("superadmin"), onlookers, "rate_limit", concurrent="1", applies_to=level, organization=""
    )
    assert field in errors(response)


def test_a_policy_stands_on_the_scope_that_was_chosen_and_on_no_other(cast: Cast) -> None:
    house, rule = cast.home, {"concurrent": "1"}
    every = {
        "application": str(house.application.pk),
        "user": str(cast.people["developer"].pk),
        "api_key": str(house.key.pk),
    }
    for level, target in (
        ("organization", house.organization),
        ("application", house.application),
        ("user", cast.people["developer"]),
        ("key", house.key),
    ):
        policy = made_policy(cast, "rate_limit", applies_to=level, **rule, **every)
        assert (policy.level.value, policy.scope_id) == (level, target.pk)
        assert policy.organization == house.organization


def test_a_superadmin_rules_the_platform(cast: Cast) -> None:
    name = unique("platform")
    form = {"name": name, "applies_to": "platform", "concurrent": "1000000"}
    assert submit(cast.browser("superadmin"), cast, "rate_limit", **form).status_code == 302
    policy = Policy.objects.get(name=name)
    policy.delete()  # tests share a database: what holds for the platform would hold for theirs
    assert policy.organization is None


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("model_restriction", {"allow": "gpt-4o*\r\nclaude-*", "deny": "o1"}),
        ("rate_limit", {"requests": "10", "tokens": "9", "per": "minute", "concurrent": "3"}),
        ("cost_cap", {"limit_usd": "12.50", "per": "day", "hard": "on", "fit": "clamp"}),
        ("guardrail", {"detector_email": "redact", "direction": "input"}),
        ("request_limits", {"max_input_tokens": "100", "allow_images": None}),
        (
            "rate_limit",
            {"concurrent": "3", "models": "gpt-*\r\no1", "valid_until_0": "2099-01-01", "valid_until_1": "12:30:00"},
        ),
    ],
)
def test_a_form_that_is_saved_as_it_stands_publishes_nothing(cast: Cast, kind: str, form: dict[str, Any]) -> None:
    policy = made_policy(cast, kind, **form)
    response = filled(cast.browser("admin"), address(policy, "change", policy.pk))
    assert response.status_code == 302, errors(response)
    before = policy.config
    policy.refresh_from_db()
    assert (policy.version, policy.config) == (1, before)
    assert ChangeRecord.objects.filter(object_id=policy.pk).count() == 1


def test_a_change_is_published_as_the_next_version_and_shown_with_the_policy(cast: Cast) -> None:
    policy, client = cast.home.policy, cast.browser("admin")
    assert filled(client, address(policy, "change", policy.pk), limit_usd="7.00").status_code == 302
    versions = PolicyVersion.objects.filter(policy_id=policy.pk).order_by("version")
    assert [version.config["limit_usd"] for version in versions] == ["5.00", "7.00"]
    page = client.get(address(policy, "change", policy.pk)).content.decode()
    assert "7.00 USD a month" in page
    assert "5.00 USD a month" in page
    record = ChangeRecord.objects.get(object_id=policy.pk, action="change")
    assert (record.before["config"]["limit_usd"], record.after["config"]["limit_usd"]) == ("5.00", "7.00")


def test_a_version_is_never_changed(onlookers: Cast) -> None:
    version = PolicyVersion.objects.filter(policy_id=onlookers.home.policy.pk).first()
    assert version is not None
    client = onlookers.browser("superadmin")
    assert client.get(address(version, "change", version.pk)).status_code == 200
    assert client.post(address(version, "change", version.pk), {"mode": "off"}).status_code == 403
    assert client.post(address(version, "delete", version.pk), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("rate_limit", {"requests": "many"}),
        ("rate_limit", ["not", "an", "object"]),
        ("cost_cap", {"limit_usd": {"a": 1}, "per": 7}),
        ("model_restriction", {"allow": "gpt"}),
        ("guardrail", {"detectors": ["email"]}),
    ],
)
def test_a_broken_policy_is_shown_as_broken_and_can_be_mended(cast: Cast, kind: str, config: Any) -> None:
    policy = made(Policy(organization=cast.home.organization, name=unique("bad"), kind=kind, config=config))
    client = cast.browser("admin")
    page = client.get(address(Policy, "changelist")).content.decode()
    assert "Broken, and therefore denies every request" in page
    mended = {
        "rate_limit": {"requests": "5", "per": "minute"},
        "cost_cap": {"limit_usd": "5", "per": "month"},
        "model_restriction": {"allow": "gpt-*"},
        "guardrail": {"detector_email": "block"},
    }[kind]
    response = filled(client, address(policy, "change", policy.pk), **mended)
    assert response.status_code == 302, errors(response)
    policy.refresh_from_db()
    policy.full_clean()


def test_a_policy_of_an_unknown_kind_is_shown_and_can_only_be_deleted(cast: Cast) -> None:
    policy = made(Policy(organization=cast.home.organization, name=unique("odd"), kind="horoscope", config={}))
    client = cast.browser("admin")
    page = client.get(address(policy, "change", policy.pk))
    assert "can only be deleted" in page.content.decode()
    assert client.post(address(policy, "change", policy.pk), {"name": "x"}).status_code == 403
    assert client.post(address(policy, "delete", policy.pk), {"post": "yes"}).status_code == 302
    assert not Policy.objects.filter(pk=policy.pk).exists()


@pytest.mark.parametrize("role", ["developer", "auditor"])
def test_those_who_may_look_see_what_a_policy_does_and_no_form(onlookers: Cast, role: str) -> None:
    policy = onlookers.home.policy
    response = onlookers.browser(role).get(address(policy, "change", policy.pk))
    page = response.content.decode()
    assert "At most 5.00 USD a month" in page
    assert 'name="limit_usd"' not in page


def test_a_policy_on_a_user_who_has_left_can_still_be_changed_or_says_why_not(cast: Cast) -> None:
    policy = made(
        Policy(
            organization=cast.home.organization,
            user=cast.people["developer"],
            name=unique("left"),
            kind="cost_cap",
            config=CAP,
        )
    )
    cast.people["developer"].memberships.all().delete()
    response = filled(cast.browser("admin"), address(policy, "change", policy.pk), limit_usd="9")
    assert "not a member" in response.content.decode()


def test_models_and_dates_are_stored_and_told(cast: Cast) -> None:
    dates = {"valid_from_0": "2026-01-01", "valid_from_1": "00:00:00"}
    policy = made_policy(cast, "rate_limit", concurrent="1", models="gpt-*\r\n\r\n o1 ", **dates)
    assert (policy.models, policy.valid_from) == (["gpt-*", "o1"], datetime(2026, 1, 1, tzinfo=UTC))
    page = cast.browser("auditor").get(address(policy, "change", policy.pk)).content.decode()
    assert "At most 1 at the same time. For gpt-*, o1 only. Holds from 2026-01-01 00:00 UTC." in page


def test_a_model_that_nobody_serves_is_warned_of_on_the_policys_page(cast: Cast) -> None:
    policy = made_policy(cast, "model_restriction", allow=f"gtp-4o\nsim-echo\n*\n{cast.home.route.model}")
    page = cast.browser("admin").get(address(policy, "change", policy.pk)).content.decode()
    assert page.count("serves the model") == 1
    assert "No route and no provider serves the model &#x27;gtp-4o&#x27; yet." in page


@pytest.mark.parametrize("row", [{"models": 7}, {"valid_from": NEXT, "valid_until": DAY}, {"config": {"requests": -1}}])
def test_a_row_that_became_invalid_in_the_database_is_shown_as_broken(cast: Cast, row: dict[str, Any]) -> None:
    policy = made_policy(cast, "rate_limit", concurrent="1")
    Policy.objects.filter(pk=policy.pk).update(**row)
    client = cast.browser("admin")
    assert (
        "This policy cannot be read as it is stored"
        in client.get(address(policy, "change", policy.pk)).content.decode()
    )
    listed = client.get(f"{address(Policy, 'changelist')}?q={policy.name}").content.decode()
    assert "Broken, and therefore denies every request" in listed
