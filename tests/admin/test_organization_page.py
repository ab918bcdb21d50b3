"""An organization's page leads to all that it has; the front page to what is still missing."""

from typing import Any

import pytest
from django.urls import reverse

from apps.gateway.models import ModelRoute
from apps.orgs.models import Organization, ProviderCredential
from apps.orgs.roles import Role
from controlplane.front_page import front_page
from tests.admin.cast import Cast, address, member, unique


def parts(cast: Cast, role: str) -> dict[str, Any]:
    organization = cast.home.organization
    page = cast.browser(role).get(address(organization, "change", organization.pk))
    return {part.title: part for part in page.context["contents"]}


def test_it_counts_what_the_organization_has_and_nothing_of_others(cast: Cast) -> None:
    for role in ("superadmin", "admin"):
        counts = {title: part.count for title, part in parts(cast, role).items()}
        assert counts == {
            "Applications": 1,
            "API keys": 1,
            "Policies": 2,
            "Provider credentials": 1,
            "Model routes": 1,
            "Requests": None,
        }


@pytest.mark.parametrize("role", ["superadmin", "admin", "developer", "auditor"])
def test_every_way_that_it_offers_opens_and_shows_the_organizations_own(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for part in parts(onlookers, role).values():
        shown = client.get(part.list)
        assert shown.status_code == 200, part.list
        assert onlookers.foreign.marker not in str(shown.context["cl"].result_list)
        assert len(shown.context["cl"].result_list) >= 1
        assert not part.add or client.get(part.add).status_code == 200


def test_it_offers_to_a_role_only_what_the_role_may_see_and_add(onlookers: Cast) -> None:
    assert "Provider credentials" not in parts(onlookers, "developer")
    assert [title for title, part in parts(onlookers, "developer").items() if part.add] == ["API keys"]
    assert [title for title, part in parts(onlookers, "auditor").items() if part.add] == []


def steps(user: Any) -> dict[str, bool]:
    return {step.title: step.done for step in front_page(user)["steps"]}


def test_the_front_page_leads_an_admin_from_nothing_to_a_served_model() -> None:
    organization = Organization.objects.create(name=unique("Empty"))
    admin = member(organization, Role.ADMIN)
    titles = ["Connect a provider", "Route a model", "Create an application", "Issue an API key", "Allow models"]
    assert list(steps(admin)) == titles
    credential = ProviderCredential(organization=organization, name="own", provider="openai")
    credential.save()
    assert steps(admin)["Connect a provider"]
    ModelRoute.objects.create(organization=organization, model="gpt-*", credential=credential)
    assert [title for title, done in steps(admin).items() if done] == ["Connect a provider", "Route a model"]


def test_the_platforms_provider_and_routes_need_not_be_made_again(cast: Cast) -> None:
    admin = member(Organization.objects.create(name=unique("Served")), Role.ADMIN)
    credential = ProviderCredential.objects.create(name=unique("shared"), provider="simulated")
    ModelRoute.objects.create(model=unique("m"), credential=credential)
    assert {title for title, done in steps(admin).items() if done} == {"Connect a provider", "Route a model"}
    assert str(credential) not in cast.browser("admin").get(reverse("admin:index")).content.decode()
