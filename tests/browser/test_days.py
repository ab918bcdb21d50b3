"""The days of who works in one organization: what its admin, developer and auditor do, and what is not theirs."""

from typing import Any

import pytest

from apps.audit.models import ChangeRecord, SavedSearch
from apps.orgs.models import ApiKey
from apps.orgs.roles import Role
from apps.policies.models import Policy
from tests.admin.cast import address, build_house, make_record, member, unique
from tests.browser.conftest import enter
from tests.browser.test_first_hour import refused_by, save

pytestmark = pytest.mark.limit_seconds(120)


def menu(page: Any) -> set[str]:
    """Return what the menu leads to."""
    return set(page.locator("#nav-sidebar-apps a").evaluate_all("links => links.map(one => one.pathname)"))


@pytest.mark.parametrize("page", [1280], indirect=True, ids=["desktop"])
def test_a_developer_makes_a_key_and_finds_out_why_a_request_was_refused(page: Any, server: str) -> None:
    house = build_house("DEVELOPER")
    record = make_record(house.organization, house.application, unique("why"), **refused_by("Pace"))
    enter(page, server, member(house.organization, Role.DEVELOPER))
    page.goto(f"{server}/admin/")
    assert not menu(page) & {"/admin/orgs/user/", "/admin/orgs/providercredential/", "/admin/audit/changerecord/"}

    page.goto(server + address(type(house.application), "change", house.application.pk))
    page.click("text=New API key")
    page.fill("#id_name", "laptop")
    save(page)
    assert page.inner_text("#api-key").startswith("lcp_")
    page.click("text=I have copied the key")
    page.wait_for_url("**/change/")

    page.click("text=Revoke")
    assert "Its requests in the last 24 hours: 0." in page.inner_text(".cp-ends")
    page.fill("[name=reason]", "lost it")
    page.click("button:has-text('Revoke')")
    page.wait_for_url("**/change/")
    assert ApiKey.objects.get(application=house.application, name="laptop").state == "revoked"

    page.goto(server + address(type(record), "changelist"))
    page.fill("#searchbar", str(record.pk))
    page.press("#searchbar", "Enter")
    page.click("#result_list a")
    assert 'Refused: policy "Pace" allows 5 requests a minute' in page.inner_text("#content")
    page.goto(server + address(Policy, "change", house.policy.pk))
    assert page.locator("button[name=_save]").count() == 0


@pytest.mark.parametrize("page", [390], indirect=True, ids=["phone"])
def test_an_auditor_reads_everything_on_a_phone_and_changes_nothing_but_searches(page: Any, server: str) -> None:
    house = build_house("AUDITOR")
    enter(page, server, member(house.organization, Role.AUDITOR))
    page.goto(f"{server}/admin/")
    page.click("[aria-label='Show or hide the menu']:visible")
    page.click("#nav-sidebar-apps a:has-text('Requests')")
    page.wait_for_url("**/requestrecord/")
    assert house.record.model in page.inner_text("#result_list")
    page.click("#result_list a >> nth=0")
    assert f"prompt {house.marker}" in page.inner_text("#content")

    page.goto(server + address(ChangeRecord, "changelist"))
    page.click("#result_list a >> nth=0")
    assert f"old {house.marker}" in page.inner_text("#content")

    for row in house.rows:
        page.goto(server + address(type(row), "change", row.pk))
        offered = page.locator("#content input[type=text], button[name=_save], a:has-text('Delete')").count()
        assert (offered > 0) is isinstance(row, SavedSearch), row


@pytest.mark.parametrize("page", [1280], indirect=True, ids=["desktop"])
def test_an_admin_is_told_what_ends_before_a_policy_is_deleted(page: Any, server: str) -> None:
    house = build_house("ADMIN")
    models = Policy.objects.create(
        organization=house.organization, name=unique("models"), kind="model_restriction", config={"allow": ["sim-*"]}
    )
    enter(page, server, member(house.organization, Role.ADMIN))
    page.goto(server + address(Policy, "change", models.pk))
    page.click("a:has-text('Delete policy')")
    said = page.inner_text(".cp-ends")
    assert "It says: Allows sim-*." in said
    assert "No other model restriction is left: every request is refused." in said
    page.click("button:has-text('Yes')")
    page.wait_for_url("**/policies/policy/")
    assert not Policy.objects.filter(pk=models.pk).exists()
