"""What ends is said before it is done: on the pages that revoke, suspend, disable and delete."""

import re
from typing import Any

import pytest
from django.test import Client

from apps.orgs import keys
from apps.orgs.models import ApiKey, Organization, User
from apps.policies.models import Policy
from tests.admin.cast import CAP, Cast, address, make_record


def said(client: Client, url: str) -> str:
    """Return the sentences of the page."""
    page = client.get(url).content.decode()
    (listed,) = re.findall(r'<ul class="cp-ends">(.*?)</ul>', page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", listed).split())


def test_revoking_a_key_tells_how_much_it_is_used(cast: Cast) -> None:
    home = cast.home
    make_record(home.organization, home.application, home.marker, api_key_id=home.key.pk)
    make_record(cast.foreign.organization, None, cast.foreign.marker, api_key_id=home.key.pk)
    text = said(cast.browser("developer"), address(ApiKey, "revoke_key", home.key.pk))
    assert "Its requests in the last 24 hours: 1." in text
    assert "Policies that stand on it alone and rule nothing without it: 1." in text


def test_suspending_an_organization_tells_what_is_refused(cast: Cast) -> None:
    text = said(cast.browser("superadmin"), address(Organization, "suspend", cast.home.organization.pk))
    assert "1 active key, of 1 application and 4 members." in text
    assert "Its requests in the last 24 hours: 1." in text


def test_the_form_of_a_user_tells_what_inactive_means(cast: Cast) -> None:
    keys.issue(organization=cast.home.organization, user=cast.home.user, name="own")
    page = cast.browser("superadmin").get(address(User, "change", cast.home.user.pk))
    assert "1 active key of their own" in page.context["adminform"].form.fields["is_active"].help_text


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("organization", "1 application, 2 policies and 4 roles of its people."),
        ("application", "refused from the next request on: 1 active key."),
        ("key", "Whatever uses it is refused from the next request on, in every process."),
        ("user", "Ended: 1 role."),
        ("policy", "What was spent no longer counts against it. The ledger stays."),
        ("credential", "with it end 1 model route;"),
        ("route", "no other route of yours names model-HOME-"),
    ],
)
def test_deleting_tells_what_ends(onlookers: Cast, row: str, sentence: str) -> None:
    one: Any = getattr(onlookers.home, row)
    assert sentence in said(onlookers.browser("superadmin"), address(type(one), "delete", one.pk))


def test_deleting_several_tells_of_each(cast: Cast) -> None:
    other = Policy.objects.create(organization=cast.home.organization, name="other", kind="cost_cap", config=CAP)
    chosen = {"action": "delete_selected", "_selected_action": [str(cast.home.policy.pk), str(other.pk)]}
    page = cast.browser("admin").post(address(Policy, "changelist"), chosen).content.decode()
    assert f"cap {cast.home.marker}&#x27; no longer holds" in page
    assert "&#x27;other&#x27; no longer holds" in page
