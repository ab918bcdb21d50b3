"""A new admin's first five minutes, in a browser, without reading anything but the pages."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from apps.audit.models import RequestRecord
from apps.orgs.models import Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Policy, Price
from tests.admin.cast import PASSWORD, member, unique
from tests.browser.test_first_hour import log_in
from tests.gateway.house import PRICE
from tests.mock_upstream import MockUpstream

pytestmark = [
    pytest.mark.usefixtures("no_runtime_is_left"),
    pytest.mark.limit_seconds(240),
    pytest.mark.parametrize("page", [1280], ids=["desktop"], indirect=True),
]
SECRET = "sk-of-a-new-admin-4711"


@pytest.fixture
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as served:
        served.key = SECRET
        served.models = ["gpt-4o-mini", "gpt-4o"]
        yield served


def opened(page: Any, step: str) -> Any:
    """A step of the guide, opened if it is not."""
    place = page.locator(f"#step-{step}")
    if place.get_attribute("open") is None:
        place.locator("summary").click()
    return place


def fits(page: Any) -> None:
    """The page is no wider than a phone."""
    page.set_viewport_size({"width": 390, "height": 844})
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert overflow <= 0, page.url


def connect_a_provider(page: Any, upstream: MockUpstream) -> None:
    """Tested at once: with a mistyped key first."""
    step = opened(page, "provider")
    step.locator("[name=provider-provider]").select_option("openai_compatible")
    step.locator("[name=provider-name]").fill("House models")
    step.locator("[name=provider-base_url]").fill(upstream.base_url)
    step.locator("[name=provider-secret]").fill("sk-mistyped-by-a-new-admin")
    step.locator("text=Test and save").click()
    page.wait_for_selector("text=The provider refuses this key")
    assert "sk-mistyped" not in page.content()
    step = page.locator("#step-provider")
    step.locator("[name=provider-secret]").fill(SECRET)
    step.locator("text=Test and save").click()
    page.wait_for_selector("text=It lists 2 models")
    fits(page)
    page.click("text=Route the chosen models")
    page.wait_for_selector("text=2 models routed")


def create_an_application_and_its_key(page: Any, server: str) -> str:
    """Return the key, which is shown once, with examples for this very host."""
    opened(page, "application").locator("[name=application-name]").fill("Checkout")
    page.click("text=Create the application")
    page.wait_for_selector("text=The application Checkout is there.")
    opened(page, "key").locator("text=Create the key").click()
    page.wait_for_selector("#api-key")
    key: str = page.inner_text("#api-key")
    for language in ("curl", "python", "node"):
        assert key in page.inner_text(f"#{language}")
        assert f"{server}/v1" in page.inner_text(f"#{language}")
    page.click("[data-copies=python]")
    page.wait_for_selector("button:has-text('Copied')")
    fits(page)
    page.click("text=I have copied the key")
    return key


def choose_policies(page: Any) -> None:
    """In plain words, whose sentences follow the numbers; nonsense first."""
    opened(page, "policies").locator("a:has-text('Choose policies')").click()
    page.wait_for_selector("text=Only the models we chose")
    page.fill("[name=budget_limit_usd]", "25")
    page.wait_for_selector("text=At most 25 USD a month")
    page.fill("[name=budget_limit_usd]", "-1")
    page.click("text=Make these policies")
    page.wait_for_selector("text=greater than or equal to 0.01")
    page.fill("[name=budget_limit_usd]", "25")
    page.check("[name=use_key_rate]")
    fits(page)
    page.click("text=Make these policies")
    page.wait_for_selector("text=4 policies hold")


def send_a_test_request(page: Any) -> None:
    """Streamed, with what each stage did beside it, and its record behind that."""
    opened(page, "request").locator("text=Open the playground").click()
    page.wait_for_selector("#playground")
    fits(page)
    page.fill("[name=model]", "gpt-4o-mini")
    page.fill("[name=message]", "mock:words=30,gap=0.01")
    page.click("#playground [name=send]")
    page.wait_for_selector("text=This is the whole answer.")
    assert page.inner_text("#answer").startswith("word0 word1")
    page.wait_for_selector("#outcome >> text=What each stage did")
    assert page.locator("#outcome .cp-path > li:not(.cp-ended, .cp-unreached)").count() == 9
    fits(page)
    page.click("text=See its record")
    page.wait_for_url("**/audit/requestrecord/**")


def test_from_an_empty_organization_to_the_record_of_a_request(page: Any, server: str, upstream: MockUpstream) -> None:
    organization = Organization.objects.create(name=unique("Acme"))
    log_in(page, server, member(organization, Role.ADMIN))
    assert "Set up Acme" in page.inner_text("#guide-title")
    fits(page)
    connect_a_provider(page, upstream)
    assert ProviderCredential.objects.get(organization=organization).secret() == SECRET
    key = create_an_application_and_its_key(page, server)
    choose_policies(page)
    assert "gpt-4o" in Policy.objects.get(organization=organization, kind="model_restriction").config["allow"]
    send_a_test_request(page)
    record = RequestRecord.objects.get(organization_id=organization.pk)
    assert str(record.pk) in page.content()
    assert "Answered by" in page.inner_text("#content")

    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
    answer = httpx.post(f"{server}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    page.goto(f"{server}/admin/")
    assert "6 of 6 done" in page.inner_text("#guide-done")


def test_a_request_is_cancelled_by_its_button(page: Any, server: str) -> None:
    organization = Organization.objects.create(name=unique("Cancel"))
    admin = member(organization, Role.ADMIN)
    organization.applications.create(name="app")
    log_in(page, server, admin)
    page.goto(f"{server}/admin/playground/")
    page.wait_for_selector("text=No policy allows this application any model yet.")
    allow = {"allow": ["sim-*"]}
    Policy.objects.create(organization=organization, name="all", kind="model_restriction", config=allow)
    if not Price.objects.filter(**PRICE).exists():
        Price.objects.create(**PRICE)
    page.goto(f"{server}/admin/playground/")
    page.fill("[name=model]", "sim-stream-3000")
    page.click("#playground [name=send]")
    page.wait_for_selector("#answer:has-text('word')")
    page.click("#cancel")
    page.wait_for_selector("#status:has-text('Cancelled')")
    page.wait_for_selector("#outcome >> text=What each stage did")
    record = RequestRecord.objects.get(organization_id=organization.pk)
    assert (record.status, record.attempts[-1].get("fault")) == ("cancelled", None)
    assert page.is_disabled("#cancel")
    assert page.is_enabled("#playground [name=send]")


def test_an_empty_platform_leads_its_superadmin_to_the_first_organization(page: Any, server: str) -> None:
    root = User.objects.create_user(unique("root"), PASSWORD, is_superuser=True)
    log_in(page, server, root)
    name = unique("First")
    page.goto(f"{server}/admin/orgs/organization/add/?guided=1")
    page.fill("#id_name", name)
    page.click("button[name=_save]")
    page.wait_for_selector("#guide-title")
    assert name in page.inner_text("#guide-title")
    page.goto(f"{server}/admin/")
    assert name in page.inner_text("#guide-title")
    page.click("text=make a person its admin")
    page.wait_for_url("**/orgs/user/add/**")
    assert page.input_value("[name=role]") == "admin"
    assert re.search(name, page.inner_text("#content"))
