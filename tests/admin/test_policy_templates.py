"""A first set of policies from templates: said in words, adjusted, made at once, or refused beside the field."""

from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import ChangeRecord
from apps.orgs.models import Organization
from apps.policies.describe import describe
from apps.policies.models import Policy
from apps.policies.template_forms import TemplatesForm
from apps.policies.templates import TEMPLATES
from tests.admin.cast import Cast, unique

BOTH = {
    "use_budget": "on",
    "budget_limit_usd": "12.50",
    "budget_per": "week",
    "use_key_rate": "on",
    "key_rate_requests": "30",
    "key_rate_per": "minute",
}


def url(organization: Organization) -> str:
    return reverse("admin:policies_policy_templates", args=[organization.pk])


def made(organization: Organization) -> dict[str, Policy]:
    return {policy.name: policy for policy in Policy.objects.filter(organization=organization)}


def test_each_template_makes_a_policy_that_says_what_the_page_said(cast: Cast) -> None:
    home, client = cast.home.organization, cast.browser("admin")
    form = client.get(url(home)).context["form"]
    said = {name: form[name].initial for name in form.fields if form[name].initial not in (None, False)}
    chosen = {f"use_{template.key}": "on" for template in TEMPLATES}
    assert all(row.says for row in form.rows())
    before = made(home)
    assert client.post(url(home), {**said, **chosen}).status_code == 302
    new = [policy for name, policy in made(home).items() if name not in before]
    assert len(new) == len(TEMPLATES)  # the one for each key: there is one key
    said_now = {describe(policy.kind, policy.config) for policy in new}
    assert {row.says for row in form.rows()} == said_now
    assert ChangeRecord.objects.filter(actor_id=cast.people["admin"].pk, action="create").count() == len(new)
    page = client.get(url(home)).content.decode()
    assert "is there already" in page


def test_adjusted_numbers_are_those_of_the_policies_and_a_limit_per_key_stands_on_each_key(cast: Cast) -> None:
    home = cast.home.organization
    assert cast.browser("admin").post(url(home), BOTH).status_code == 302
    policies = made(home)
    assert policies["Team budget"].config["limit_usd"] == "12.50"
    assert policies["Team budget"].config["per"] == "week"
    of_key = policies[f"Requests per key: {cast.home.key.name}"]
    assert (of_key.api_key, of_key.config) == (cast.home.key, {"requests": 30, "per": "minute"})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"budget_limit_usd": "0"}, "budget_limit_usd"),
        ({"budget_limit_usd": "a lot"}, "budget_limit_usd"),
        ({"budget_limit_usd": "99999999999"}, "budget_limit_usd"),
        ({"budget_limit_usd": ""}, "budget_limit_usd"),
        ({"budget_per": "fortnight"}, "budget_per"),
        ({"key_rate_requests": "-3"}, "key_rate_requests"),
        ({"use_models": "on", "models_allow": " \n"}, "models_allow"),
        ({"use_models": "on", "models_allow": "x" * 300}, "models_allow"),
        ({"use_models": "on", "models_allow": "gpt\x07"}, "models_allow"),
    ],
)
def test_nonsense_is_refused_beside_its_field_and_nothing_is_made(
    cast: Cast, changes: dict[str, str], field: str
) -> None:
    home = cast.home.organization
    before = made(home)
    page = cast.browser("admin").post(url(home), BOTH | changes)
    assert page.status_code == 200
    assert list(page.context["form"].errors) == [field]
    assert made(home) == before


def test_nonsense_in_what_is_not_chosen_does_not_matter(cast: Cast) -> None:
    answer = cast.browser("admin").post(url(cast.home.organization), BOTH | {"short_max_output_tokens": "many"})
    assert answer.status_code == 302


def test_the_same_set_is_not_made_twice(cast: Cast) -> None:
    home, client = cast.home.organization, cast.browser("admin")
    client.post(url(home), BOTH)
    page: Any = client.post(url(home), BOTH)
    assert set(page.context["form"].errors) == {"use_budget", "use_key_rate"}
    assert client.post(url(home), {}).context["form"].non_field_errors() == ["Choose at least one."]


def test_a_sentence_follows_the_answers_before_anything_is_made(cast: Cast) -> None:
    home = cast.home.organization
    before = made(home)
    answer = cast.browser("admin").post(url(home), BOTH | {"preview": "1", "rate_requests": "no"}).json()
    assert answer["budget"].startswith("At most 12.50 USD a week")
    assert answer["rate"] == ""
    assert answer.keys() == {template.key for template in TEMPLATES}
    assert made(home) == before


def test_a_set_may_be_for_one_application_of_the_organization_and_of_no_other(cast: Cast) -> None:
    home, client = cast.home.organization, cast.browser("admin")
    refused = client.post(url(home), BOTH | {"application": str(cast.foreign.application.pk)})
    assert "application" in refused.context["form"].errors
    assert client.post(url(home), BOTH | {"application": str(cast.home.application.pk)}).status_code == 302
    assert made(home)["Team budget"].application == cast.home.application


@pytest.mark.parametrize("person", ["developer", "auditor", "outsider", "nobody"])
def test_only_who_may_add_policies_gets_the_page(onlookers: Cast, person: str) -> None:
    client, home = onlookers.browser(person), onlookers.home.organization
    assert client.get(url(home)).status_code in (302, 403)
    assert client.post(url(home), BOTH).status_code in (302, 403)
    assert "Team budget" not in made(home)


def test_every_model_that_is_reachable_is_suggested_and_names_of_policies_are_their_own() -> None:
    organization = Organization.objects.create(name=unique("suggested"))
    form = TemplatesForm(organization, ["gpt-4o-mini", "sim-*"])
    assert form["models_allow"].initial == "gpt-4o-mini\nsim-*"
    assert len({template.name for template in TEMPLATES}) == len({template.key for template in TEMPLATES})
