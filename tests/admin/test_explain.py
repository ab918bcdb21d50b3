"""The page that shows the policies of a caller and what they say of a request."""

from typing import Any
from uuid import uuid4

import pytest
from django.urls import reverse

from apps.policies.models import Policy
from tests.admin.cast import Cast, address, made, unique

pytestmark = pytest.mark.usefixtures("no_runtime_is_left")


def explain_page(subject: str, pk: Any) -> str:
    return reverse("admin:policies_policy_explain", args=[subject, pk])


def subjects(cast: Cast) -> dict[str, Any]:
    return {"application": cast.home.application, "key": cast.home.key, "user": cast.home.user}


@pytest.mark.parametrize("subject", ["application", "key", "user"])
def test_each_pages_button_leads_to_its_policies(onlookers: Cast, subject: str) -> None:
    row, client = subjects(onlookers)[subject], onlookers.browser("admin")
    button = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_explain", args=[row.pk])
    assert button in client.get(address(row, "change", row.pk)).content.decode()
    page = client.get(button, follow=True)
    assert page.redirect_chain[-1][0] == explain_page(subject, row.pk)
    assert onlookers.home.policy.name in page.content.decode()


@pytest.mark.parametrize("person", ["outsider", "nobody"])
@pytest.mark.parametrize("subject", ["application", "key", "user"])
def test_another_organizations_people_see_nothing_of_it(onlookers: Cast, person: str, subject: str) -> None:
    client = onlookers.browser(person)
    for pk in (subjects(onlookers)[subject].pk, uuid4()):
        assert client.get(explain_page(subject, pk)).status_code in (302, 403)
        assert client.post(explain_page(subject, pk), {"model": "sim-echo", "text": "x"}).status_code in (302, 403)


def test_a_request_is_explained_and_not_made(cast: Cast) -> None:
    house = cast.home
    made(
        Policy(
            organization=house.organization,
            application=house.application,
            name=unique("only gpt"),
            kind="model_restriction",
            config={"allow": ["gpt-*"]},
        )
    )
    client, page = cast.browser("auditor"), explain_page("application", house.application.pk)
    refused = client.post(page, {"model": "sim-echo", "text": "Hello"}).content.decode()
    assert "refused" in refused
    assert "does not allow the model &#x27;sim-echo&#x27;" in refused
    assert "application: app HOME" in refused


def test_a_form_without_a_model_explains_nothing(onlookers: Cast) -> None:
    page = explain_page("application", onlookers.home.application.pk)
    response = onlookers.browser("admin").post(page, {"text": "x", "max_tokens": "-1"})
    assert set(response.context["form"].errors) == {"model", "max_tokens"}
    assert response.context["explained"] is None
