"""An admin has alerts sent: sets up each channel, tests it, sees a budget's alert arrive, and retries what failed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connections
from django.test import override_settings

from apps.alerts.models import MOST_ATTEMPTS, Delivery, Destination
from apps.alerts.teller import tell
from apps.audit.models import Alert
from apps.orgs import keys
from apps.orgs.models import Organization
from apps.orgs.roles import Role
from apps.policies.models import Policy, Price
from tests.admin.cast import address, made, member, unique
from tests.alerts.telling import let_time_pass, tell_all
from tests.alerts.test_docs import verify
from tests.browser import axe
from tests.browser.conftest import enter
from tests.browser.test_first_hour import save
from tests.gateway.house import PRICE
from tests.services.mail_server import MailServer
from tests.services.receiver import Receiver

pytestmark = [pytest.mark.usefixtures("no_runtime_is_left"), pytest.mark.limit_seconds(180)]


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as running:
        smtp = {"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend", "EMAIL_HOST": "127.0.0.1"}
        with override_settings(EMAIL_URL=running.url, EMAIL_PORT=running.port, **smtp):
            yield running


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def slack() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def organization() -> Organization:
    """An organization that may call everything simulated, and hears of half of a small budget."""
    row = Organization.objects.create(name=unique("Acme"))
    made(Policy(organization=row, name="all", kind="model_restriction", config={"allow": ["sim-*"]}))
    cap = {"limit_usd": "0.001", "per": "month", "hard": False, "alert_at": [50]}
    made(Policy(organization=row, name="Team budget", kind="cost_cap", config=cap))
    if not Price.objects.filter(**PRICE).exists():
        Price.objects.create(**PRICE)
    return row


def set_up(page: Any, server: str, channel: str, field: str, leads_to: str) -> None:
    """Make a destination by the form, which asks for what its channel needs and for nothing else."""
    page.goto(server + address(Destination, "add"))
    page.fill("#id_name", f"by {channel}")
    page.select_option("#id_channel", channel)
    reads_well(page)
    for other in ("recipients", "url", "slack_url"):
        page.locator(f"#id_{other}").wait_for(state="visible" if other == field else "hidden")
    save(page)
    assert "Give " in page.inner_text(f".form-row:has(#id_{field})")
    page.fill(f"#id_{field}", leads_to)
    save(page)


def reads_well(page: Any) -> None:
    """The page keeps to WCAG and is no wider than the screen, which is a phone's as well."""
    assert axe.violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def act(page: Any, action: str) -> None:
    """Press what may be done with a row: on a phone the actions are behind a button."""
    link = page.locator(f"a:has-text('{action}')").locator("visible=true")
    if not link.count():
        page.locator("[x-on\\:click*=showActions]").locator("visible=true").click()
    link.click()


def aside(work: Callable[[], object]) -> None:
    """Do it in a thread of its own, as a server does: Playwright has an event loop in this one."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


def send_a_test(page: Any, server: str, destination: Destination) -> str:
    """Have a test sent from the destination's page; return what the page says of it."""
    page.goto(server + address(Destination, "change", destination.pk))
    act(page, "Send a test")
    page.click("#content button:has-text('Send a test')")
    page.wait_for_url("**/change/")
    reads_well(page)
    said: str = page.inner_text("main, #main")
    return said


def spend(server: str, organization: Organization) -> None:
    """Spend six tenths of the budget through the gateway."""
    application = organization.applications.create(name="app")
    key = keys.issue(organization=organization, application=application, name="key").text
    body = {"model": "sim-usage-600-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    answer = httpx.post(f"{server}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text


def test_an_admin_sets_up_alerts_tests_them_and_retries_what_failed(
    page: Any, server: str, organization: Organization, mails: MailServer, hooks: Receiver, slack: Receiver
) -> None:
    enter(page, server, member(organization, Role.ADMIN))
    set_up(page, server, "email", "recipients", "ops@example.com")
    set_up(page, server, "webhook", "url", hooks.url)
    reads_well(page)
    secret = page.inner_text("#signing-secret")
    assert secret.startswith("whsec_")
    set_up(page, server, "slack", "slack_url", slack.url)
    assert slack.url not in page.content()

    mail, chat, hook = Destination.objects.filter(organization=organization).order_by("name")
    for destination in (mail, hook, chat):
        assert set(destination.kinds) == set(Alert.Kind.values)
        assert "The test has arrived." in send_a_test(page, server, destination)
    assert mails.mails[0].recipients == ["ops@example.com"]
    assert verify(secret, hooks.received[0].headers["lcp-signature"], hooks.received[0].body)
    assert "text" in slack.received[0].json
    hooks.script.append(500)
    assert "The test has not arrived. The receiver answered 500." in send_a_test(page, server, hook)

    spend(server, organization)
    hooks.script.extend([500] * MOST_ATTEMPTS)
    aside(tell)
    for _ in range(MOST_ATTEMPTS):
        let_time_pass(hook)
        aside(tell_all)
    assert "50 %" in str(mails.mails[1].message["Subject"])
    assert "Team budget" in slack.received[1].json["text"]
    page.goto(server + address(Alert, "changelist"))
    assert "50 % of 'Team budget' is spent" in page.inner_text("#result_list")

    page.goto(server + address(Destination, "changelist"))
    page.click("a:has-text('1 failed')")
    page.wait_for_url("**/delivery/**")
    page.click("#result_list a >> nth=0")
    assert "The receiver answered 500." in page.inner_text("#content")
    act(page, "Try again")
    page.click("#content button:has-text('Try again')")
    page.wait_for_url("**/change/")
    aside(tell_all)
    came = hooks.received[-1]
    assert verify(secret, came.headers["lcp-signature"], came.body)
    assert came.json["alerts"][0]["details"]["policy"] == "Team budget"
    assert Delivery.objects.get(destination=hook).state == "sent"
    page.reload()
    assert "The receiver answered 204." in page.inner_text("#content")
