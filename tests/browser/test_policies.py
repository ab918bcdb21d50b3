"""A policy's form says what it will do while it is filled in, and what is wrong where it is wrong."""

from typing import Any

import pytest

from apps.orgs.models import Organization, User
from apps.policies.models import Policy
from tests.admin.cast import CAP, PASSWORD, address, made, unique
from tests.browser.test_first_hour import log_in

pytestmark = pytest.mark.limit_seconds(90)


@pytest.mark.parametrize("page", [390], indirect=True, ids=["phone"])
def test_a_form_says_what_the_policy_will_do_and_a_draft_what_would_change(page: Any, server: str) -> None:
    root = User.objects.create_user(unique("root"), PASSWORD, is_superuser=True)
    log_in(page, server, root)
    page.goto(f"{server}{address(Policy, 'add')}?kind=rate_limit")
    said, wrong = page.locator("#policy-sentence [data-sentence]"), page.locator("#id_requests-live")
    assert "Not complete yet" in said.inner_text()
    page.fill("#id_requests", "0")
    wrong.get_by_text("whole number").wait_for()
    page.fill("#id_requests", "25")
    page.select_option("#id_per", "minute")
    said.get_by_text("At most 25 requests a minute.").wait_for()
    assert wrong.inner_text() == ""

    acme = Organization.objects.create(name=unique("Acme"))
    policy = made(Policy(organization=acme, name=unique("cap"), kind="cost_cap", config=CAP, mode="off"))
    page.goto(f"{server}{address(policy, 'change', policy.pk)}")
    page.fill("#id_limit_usd", "7.50")
    said.get_by_text("At most 7.50 USD a month").wait_for()
    page.click("button[name=_draft]")
    page.wait_for_url("**/draft/")
    assert page.locator("td.cp-after").all_inner_texts() == ["7.50"]
    page.click("button[name=publish]")
    page.wait_for_url("**/change/")
    policy.refresh_from_db()
    assert (policy.version, policy.config["limit_usd"], policy.mode) == (2, "7.50", "off")
