"""What a form says when something is sent, or stands in the address, that can be no id."""

from typing import Any

import pytest

from apps.gateway.models import ModelRoute
from apps.orgs.models import ApiKey, Application, Identity, Membership, Organization
from apps.policies.models import Policy
from tests.admin.cast import Cast, address, errors, filled

NO_ID = "42; --"
FIELDS: list[tuple[Any, str, str]] = [
    (Application, "organization", ""),
    (ApiKey, "application", ""),
    (ModelRoute, "credential", ""),
    (Policy, "application", "?kind=cost_cap"),
]


@pytest.mark.parametrize(("model", "field", "query"), FIELDS)
def test_what_is_no_id_is_refused_at_its_field(onlookers: Cast, model: Any, field: str, query: str) -> None:
    for person in ("superadmin", "admin"):
        url = address(model, "add") + query
        assert field in errors(filled(onlookers.browser(person), url, **{field: NO_ID}))


@pytest.mark.parametrize(("model", "field", "query"), FIELDS)
def test_an_address_that_names_what_is_no_id_opens_an_empty_field(
    onlookers: Cast, model: Any, field: str, query: str
) -> None:
    url = f"{address(model, 'add')}{query or '?'}&{field}={NO_ID}"
    page = onlookers.browser("superadmin").get(url)
    assert page.status_code == 200
    assert f'value="{NO_ID}"' not in page.content.decode()


def test_what_is_no_id_is_refused_in_an_inline(onlookers: Cast) -> None:
    url = address(Organization, "change", onlookers.home.organization.pk)
    browser = onlookers.browser("admin")
    total = browser.get(url).context["inline_admin_formsets"][0].formset.total_form_count()
    row = {f"memberships-{total}-user": NO_ID, f"memberships-{total}-role": "auditor"}
    answer = filled(browser, url, **row, **{"memberships-TOTAL_FORMS": total + 1})
    assert answer.status_code == 200
    assert any("user" in form for form in answer.context["inline_admin_formsets"][0].formset.errors)


def test_the_page_of_a_person_shows_whom_the_provider_knows_and_what_they_call_for(onlookers: Cast) -> None:
    home = onlookers.home
    Identity.objects.get_or_create(user=home.user, issuer="https://login.example.com", subject=f"sub-{home.marker}")
    Membership.objects.filter(user=home.user).update(application=home.application)
    page = onlookers.browser("auditor").get(address(type(home.user), "change", home.user.pk)).content.decode()
    assert f"sub-{home.marker} at https://login.example.com" in page
    assert str(home.application) in page
