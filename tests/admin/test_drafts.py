"""Drafts of policies: seen before they hold, published once, and gone back from."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.audit.models import ChangeRecord
from apps.gateway.configuration import load_configuration
from apps.orgs.scoped_admin import STALE, STAMP
from apps.orgs.versions import Versions
from apps.policies.models import Policy, PolicyVersion
from tests.admin.cast import Cast, address, filled, unique

DESCRIBE = "admin:policies_policy_describe"


def drafted(cast: Cast, **changes: Any) -> Policy:
    """Return the house's cost cap of 5 USD with a draft of an admin's."""
    policy = cast.home.policy
    response = filled(cast.browser("admin"), address(policy, "change", policy.pk), _draft="1", **changes)
    assert response.status_code == 302
    assert response["location"] == address(policy, "draft", policy.pk)
    return Policy.objects.get(pk=policy.pk)


def submit(client: Client, url: str, **said: str) -> Any:
    return client.post(url, {STAMP: client.get(url).context["stamp"], **said})


def limits_in_force(cast: Cast) -> set[int]:
    configuration = load_configuration(cast.home.organization.pk, Versions(0, 0))
    assert configuration is not None
    scopes = [(cast.home.policy.level, cast.home.organization.pk)]
    return {policy.rule.limit_nano_usd // 10**9 for policy in configuration.policies.on(scopes)}  # type: ignore[union-attr]


def done_to(policy: Policy) -> list[tuple[str, str]]:
    rows = ChangeRecord.objects.filter(object_id=policy.pk).order_by("id")
    return [(row.action, row.reason) for row in rows]


def test_a_draft_holds_for_nobody_until_it_is_published_and_then_as_the_next_version(cast: Cast) -> None:
    policy = drafted(cast, limit_usd="7", mode="enforce", reason="prices rose")
    url, client = address(policy, "draft", policy.pk), cast.browser("admin")
    assert (policy.version, policy.config["limit_usd"], limits_in_force(cast)) == (1, "5.00", {5})
    page = client.get(url).content.decode()
    for text in ("At most 5.00 USD a month", "At most 7 USD a month", "limit (USD)"):
        assert text in page
    assert "At most 7 USD a month" in client.get(address(policy, "change", policy.pk)).content.decode()
    assert submit(client, url, publish="1", reason="agreed").status_code == 302
    policy.refresh_from_db()
    assert (policy.version, policy.config["limit_usd"], policy.draft, limits_in_force(cast)) == (2, "7", None, {7})
    assert done_to(policy) == [("draft", "prices rose"), ("publish", "agreed")]
    assert PolicyVersion.objects.get(policy_id=policy.pk, version=1).config["limit_usd"] == "5.00"
    assert client.get(url).status_code == 302  # there is no draft any more


def test_an_older_version_is_published_again_as_a_new_one(cast: Cast) -> None:
    policy, client = cast.home.policy, cast.browser("admin")
    assert filled(client, address(policy, "change", policy.pk), limit_usd="7", name=unique("new")).status_code == 302
    url = f"{address(policy, 'restore', policy.pk)}?version=1"
    assert url in client.get(address(policy, "change", policy.pk)).content.decode()
    assert submit(client, url, publish="1", reason="too much").status_code == 302
    restored = Policy.objects.get(pk=policy.pk)
    assert (restored.version, restored.config, restored.name) == (3, policy.config, policy.name)
    assert done_to(policy)[-1] == ("roll back", "Version 1 restored. too much")
    versions = PolicyVersion.objects.filter(policy_id=policy.pk).order_by("version")
    assert [version.config["limit_usd"] for version in versions] == ["5.00", "7", "5.00"]
    assert "Nothing would change" in client.get(url).content.decode()
    for number in ("9", "-1", "x", "9" * 30):
        assert client.get(f"{address(policy, 'restore', policy.pk)}?version={number}").status_code == 302


def test_of_two_people_at_one_policy_nobody_publishes_what_they_have_not_seen(cast: Cast) -> None:
    policy = drafted(cast, limit_usd="7")
    url, client = address(policy, "draft", policy.pk), cast.browser("admin")
    stamp = client.get(url).context["stamp"]
    form_url = address(policy, "change", policy.pk)
    assert filled(cast.browser("superadmin"), form_url, limit_usd="6").status_code == 302
    refused = client.post(url, {"publish": "1", STAMP: stamp})
    assert list(refused.context["form"].non_field_errors()) == [STALE]
    page = refused.content.decode()
    assert "Version 2 was published since: the draft was begun on version 1." in page
    assert "At most 6 USD a month" in page
    policy.refresh_from_db()
    assert (policy.config["limit_usd"], policy.draft["content"]["config"]["limit_usd"]) == ("6", "7")
    assert client.post(url, {"publish": "1", STAMP: refused.context["stamp"]}).status_code == 302
    policy.refresh_from_db()
    assert (policy.version, policy.config["limit_usd"]) == (3, "7")


def test_a_draft_is_edited_on_its_own_form_and_can_be_discarded(cast: Cast) -> None:
    policy = drafted(cast, limit_usd="7")
    client, form_url = cast.browser("admin"), address(policy, "change", policy.pk)
    page = client.get(f"{form_url}?draft=1")
    assert page.context["adminform"].form["limit_usd"].value() == "7"
    assert "You are editing a draft." in page.content.decode()
    assert 'name="_save"' not in page.content.decode()
    assert filled(client, f"{form_url}?draft=1", limit_usd="8", _save="1").status_code == 302
    policy.refresh_from_db()
    assert (policy.version, policy.config["limit_usd"], policy.draft["content"]["config"]["limit_usd"]) == (
        1,
        "5.00",
        "8",
    )
    assert submit(client, address(policy, "draft", policy.pk), discard="1").status_code == 302
    policy.refresh_from_db()
    assert (policy.version, policy.draft) == (1, None)
    (kept,) = ChangeRecord.objects.filter(object_id=policy.pk, action="discard draft")
    assert kept.before["draft"]["content"]["config"]["limit_usd"] == "8"


def test_a_new_policy_that_is_a_draft_begins_as_one_that_is_off(cast: Cast) -> None:
    form = {"applies_to": "organization", "organization": str(cast.home.organization.pk), "name": unique("new")}
    url = f"{address(Policy, 'add')}?kind=rate_limit"
    response = filled(cast.browser("admin"), url, requests="5", per="minute", _draft="1", **form)
    policy = Policy.objects.get(name=form["name"])
    assert response["location"] == address(policy, "draft", policy.pk)
    assert (policy.version, policy.mode, policy.draft["content"]["mode"]) == (1, "off", "enforce")


@pytest.mark.parametrize("role", ["developer", "auditor"])
def test_those_who_may_look_see_a_draft_and_cannot_publish_it(cast: Cast, role: str) -> None:
    policy = drafted(cast, limit_usd="7")
    client = cast.browser(role)
    for url in (address(policy, "draft", policy.pk), f"{address(policy, 'restore', policy.pk)}?version=1"):
        page = client.get(url)
        assert page.status_code == 200
        assert 'name="publish"' not in page.content.decode()
        assert client.post(url, {"publish": "1", STAMP: page.context["stamp"]}).status_code == 403
    policy.refresh_from_db()
    assert policy.version == 1


def test_a_draft_that_can_no_longer_hold_is_refused_with_the_reason(cast: Cast) -> None:
    policy = drafted(cast, limit_usd="7")
    policy.draft["content"]["config"] = {"limit_usd": "many", "per": "day"}
    policy.save_draft()
    refused = submit(cast.browser("admin"), address(policy, "draft", policy.pk), publish="1")
    assert any("limit_usd" in error for error in refused.context["form"].non_field_errors())
    policy.refresh_from_db()
    assert (policy.version, policy.config["limit_usd"]) == (1, "5.00")


SENTENCES: list[tuple[str, dict[str, str], str, list[str]]] = [
    ("rate_limit", {"requests": "5", "per": "minute"}, "At most 5 requests a minute.", []),
    (
        "rate_limit",
        {"requests": "5", "per": "minute", "mode": "off", "models": "gpt-*"},
        "Off: does nothing. Enforced, it would say: At most 5 requests a minute. For gpt-* only.",
        [],
    ),
    ("rate_limit", {"requests": "5"}, "", ["per"]),
    ("cost_cap", {"limit_usd": "-1", "per": "day", "fit": "refuse"}, "", ["limit_usd"]),
    (
        "guardrail",
        {"direction": "input", "detector_email": "redact"},
        "Redacts e-mail addresses in requests.",
        [],
    ),
]


@pytest.mark.parametrize(("kind", "form", "sentence", "wrong"), SENTENCES)
def test_a_half_filled_form_is_said_to_mean_what_it_will_do(
    onlookers: Cast, kind: str, form: dict[str, str], sentence: str, wrong: list[str]
) -> None:
    client, url = onlookers.browser("admin"), f"{reverse(DESCRIBE)}?kind={kind}"
    said = client.post(url, {"mode": "enforce", **form}).json()
    assert (said["sentence"], sorted(said["errors"])) == (sentence, wrong)
    assert set(form) - {"mode"} <= set(said["fields"])


def test_the_sentence_of_a_form_is_for_those_who_may_write_policies(onlookers: Cast) -> None:
    url = f"{reverse(DESCRIBE)}?kind=rate_limit"
    for person in ("auditor", "developer"):
        assert onlookers.browser(person).post(url, {"requests": "1"}).status_code == 403
    admin = onlookers.browser("admin")
    assert admin.get(url).status_code == 403
    assert admin.post(f"{reverse(DESCRIBE)}?kind=horoscope", {}).status_code == 403
    page = admin.get(address(Policy, "add") + "?kind=rate_limit").content.decode()
    assert f'data-address="{url}"' in page
    assert "control_plane/policy_sentence.js" in page
