"""Every page of the admin under its Content-Security-Policy: what it forbids, the console of the browser tells."""

from typing import Any

import pytest

from apps.orgs.models import User
from tests.admin.cast import PASSWORD, address, build_house, pages, unique
from tests.browser.test_first_hour import choose, log_in

pytestmark = pytest.mark.limit_seconds(240)


def visit(page: Any, url: str) -> None:
    answer = page.goto(url)
    assert answer.status == 200, url
    assert "unsafe-inline" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("page", [1280], indirect=True)
def test_no_page_asks_for_what_the_policy_forbids(page: Any, server: str) -> None:
    superadmin = User.objects.create_user(unique("root"), PASSWORD, is_superuser=True)
    house = build_house("CSP")
    log_in(page, server, superadmin)
    rows = {type(row): row.pk for row in house.rows}
    for model in pages():
        of_a_row = ["change", "history", *(["delete"] if "delete" in model._meta.default_permissions else [])]
        for kind in ["changelist", *(["add"] if "add" in model._meta.default_permissions else [])]:
            visit(page, server + address(model, kind))
        for kind in of_a_row if model in rows else []:
            visit(page, server + address(model, kind, rows[model]))
    add = "policies/policy/add/?kind="
    for path in ("", "usage/?period=30d", "password_change/", f"{add}cost_cap", f"{add}guardrail"):
        visit(page, f"{server}/admin/{path}")
    visit(page, f"{server}/v1/docs")
    page.click("summary >> nth=0")

    # The theme's own moving parts: the list's actions, its filters, the search box, the theme switch, suggestions.
    page.goto(server + address(type(house.application), "changelist"))
    page.check("#result_list tbody input.action-select >> nth=0")
    page.wait_for_selector("#changelist-actions .action-counter")
    assert page.locator("#changelist-actions").bounding_box()["width"] > 200
    page.goto(server + address(type(house.application), "add"))
    choose(page, "organization", house.organization.name)
    colour = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--color-primary-600').trim()")
    assert colour
    assert page.evaluate("document.querySelectorAll('style').length") == 0
