"""What a superadmin does in the first hour, in a browser, without reading anything but the pages."""

from typing import Any
from uuid import uuid4

import pytest

from apps.orgs import keys
from apps.orgs.models import Organization, User
from apps.policies.models import Policy
from tests.admin.cast import PASSWORD, make_record, unique
from tests.browser import axe
from tests.browser.conftest import enter

pytestmark = pytest.mark.limit_seconds(180)
ON_A_DESKTOP = pytest.mark.parametrize("page", [1280], indirect=True, ids=["desktop"])
ON_A_PHONE = pytest.mark.parametrize("page", [390], indirect=True, ids=["phone"])


@pytest.fixture
def superadmin() -> User:
    return User.objects.create_user(unique("root"), PASSWORD, is_superuser=True)


def log_in(page: Any, server: str, user: User) -> None:
    page.goto(f"{server}/admin/")
    page.fill("[name=username]", user.username)
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(f"{server}/admin/")


def choose(page: Any, field: str, name: str) -> None:
    """Pick a suggestion of an autocompleted field."""
    page.click(f"#id_{field} + .select2")
    page.fill(".select2-search__field", name)
    page.click(f".select2-results__option:has-text('{name}')")


def refused_by(policy: str) -> dict[str, Any]:
    """Return what a record keeps of a request that a rate limit refused."""
    of = {"policy": policy, "policy_id": str(uuid4()), "version": 1}
    message = f"Policy '{policy}' allows 5 requests a minute. Retry in 12 seconds."
    reading = {"kind": "requests", "limit": 5, "window_seconds": 60, "remaining": 0, "asked": 1, "reset_seconds": 12}
    return {
        "status": "blocked",
        "http_status": 429,
        "error_code": "RATE_LIMIT_EXCEEDED",
        "error_message": message,
        "reasons": [{**of, "code": "RATE_LIMIT_EXCEEDED", "message": message, "enforced": True}],
        "limits": [{**of, **reading}],
    }


def save(page: Any) -> None:
    page.click("button[name=_save]")
    page.wait_for_load_state()


def test_from_nothing_to_a_found_request(page: Any, server: str, superadmin: User) -> None:
    organization, application, policy = unique("Acme"), unique("checkout"), unique("models")
    log_in(page, server, superadmin)

    page.goto(f"{server}/admin/orgs/organization/add/")
    page.fill("#id_name", organization)
    save(page)

    page.goto(f"{server}/admin/orgs/application/add/")
    choose(page, "organization", organization)
    page.fill("#id_name", application)
    save(page)

    page.goto(f"{server}/admin/orgs/application/?q={application}")
    page.click(f"#result_list a:has-text('{application}')")
    page.wait_for_url("**/change/**")
    page.goto(page.url.split("/change/")[0] + "/new_key/")
    page.locator("#id_user").wait_for(state="hidden")
    page.fill("#id_name", "production")
    save(page)
    assert axe.violations(page) == []
    text = page.inner_text("#api-key")
    key = keys.find(text)
    assert key is not None
    assert key.application is not None
    assert key.application.name == application
    assert text in page.inner_text("#curl")
    page.click("[data-copies=api-key]")
    page.wait_for_selector("button:has-text('Copied')")
    page.reload()
    assert text not in page.content()

    page.goto(f"{server}/admin/policies/policy/add/")
    page.click("a:has-text('Model restriction')")
    page.fill("#id_name", policy)
    page.select_option("#id_applies_to", "application")
    page.locator("#id_organization + .select2").wait_for(state="hidden")
    choose(page, "application", application)
    page.fill("#id_allow", "sim-*")
    save(page)
    assert Policy.objects.get(name=policy).application == key.application

    row = Organization.objects.get(name=organization)
    record = make_record(row, key.application, unique("marker"), **refused_by("Pace"))
    page.goto(f"{server}/admin/audit/requestrecord/")
    page.fill("#searchbar", str(record.pk))
    page.press("#searchbar", "Enter")
    page.click("#result_list a")
    said = page.inner_text("#content")
    assert 'Refused: policy "Pace" allows 5 requests a minute; none was left. It would have fitted' in said
    assert "RATE_LIMIT_EXCEEDED" in said


@ON_A_PHONE
def test_the_policies_form_shows_errors_at_the_field_and_keeps_what_was_typed(
    page: Any, server: str, superadmin: User
) -> None:
    enter(page, server, superadmin)
    page.goto(f"{server}/admin/policies/policy/add/?kind=rate_limit")
    page.fill("#id_name", "half a rule")
    page.fill("#id_requests", "10")
    page.select_option("#id_applies_to", "platform")
    save(page)
    assert "Say per which window" in page.inner_text(".form-row:has(#id_per)")
    assert axe.violations(page) == []
    assert page.input_value("#id_requests") == "10"
    assert page.input_value("#id_applies_to") == "platform"


@ON_A_DESKTOP
def test_a_second_click_sends_nothing_and_a_pasted_key_stays_out_of_the_address(
    page: Any, server: str, superadmin: User
) -> None:
    enter(page, server, superadmin)
    organization, posts = unique("Once"), []
    page.on("request", lambda request: request.method == "POST" and posts.append(request.url))
    page.goto(f"{server}/admin/orgs/organization/add/")
    page.fill("#id_name", organization)
    # The second click comes before the answer, however fast that is.
    page.route("**/organization/add/", lambda route: (page.wait_for_timeout(300), route.continue_()))
    page.evaluate("() => [0, 100].forEach(ms => setTimeout(() => document.querySelector('[name=_save]').click(), ms))")
    page.wait_for_url(f"{server}/admin/orgs/organization/")
    assert len(posts) == 1
    secret = keys.new_text()
    page.fill("#searchbar", secret)
    page.press("#searchbar", "Enter")
    page.wait_for_url("**/?q=*")
    assert secret not in page.url
    assert keys.prefix_of(secret) in page.url
