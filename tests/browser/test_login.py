"""Login with the identity provider in a browser, in front of a server as its users start it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from apps.orgs.models import Membership, Organization
from tests.login.flow import Visitor
from tests.services.openid_provider import OpenIdProvider
from tests.services.postgres import with_name
from tests.services.server import ServerProcess, tracebacks

pytestmark = [
    pytest.mark.limit_seconds(180),
    pytest.mark.parametrize("page", [1280], ids=["desktop"], indirect=True),
]
NO_ROUNDS = dict.fromkeys(("SWEEP_SECONDS", "ROLLUP_SECONDS", "ALERT_SECONDS", "EXPORT_CHECK_SECONDS"), "0")
BUTTON = "text=Sign in with your organization's account"


@pytest.fixture(scope="module")
def site(openid: OpenIdProvider, tmp_path_factory: pytest.TempPathFactory, database: None) -> Iterator[str]:
    """The address of a server on the database of this process's models, in which other tests have left their own.

    Nothing of theirs is its business, so that it neither sweeps nor sums up, exports or tells what it finds there.
    """
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    Organization.objects.create(name=f"no demo {uuid4()}")
    url = with_name(os.environ["DATABASE_URL"], connection.settings_dict["NAME"])
    folder: Path = tmp_path_factory.mktemp("site")
    chosen = {**openid.settings(), **NO_ROUNDS, "DATABASE_URL": url, "PASSWORD_LOGIN": "false"}
    server = ServerProcess(folder, chosen).start()
    yield server.url
    server.stop()
    assert tracebacks(server.log.read_text()) == []


@pytest.fixture
def visitor(openid: OpenIdProvider) -> Visitor:
    return Visitor(openid)


def log_in_there(page: Any, visitor: Visitor) -> None:
    page.click(BUTTON)
    page.wait_for_url("**/interaction/**")
    page.fill("[name=login]", visitor.subject)
    page.click("button")
    page.wait_for_url("**127.0.0.1:*/admin/**")


def log_out(page: Any) -> None:
    page.locator("#logout-form").evaluate("form => form.requestSubmit()")
    page.wait_for_url("**/admin/login/")


def test_a_person_logs_in_reaches_the_page_they_wanted_and_logs_out_here_and_there(
    page: Any, site: str, visitor: Visitor
) -> None:
    page.goto(f"{site}/admin/orgs/application/")
    assert page.locator("[name=password]").count() == 0
    log_in_there(page, visitor)
    assert page.url == f"{site}/admin/orgs/application/"
    page.wait_for_selector(f"text={visitor.organization.name}")
    before = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert before["sessionid"]["httpOnly"]
    assert before["sessionid"]["sameSite"] == "Lax"

    log_out(page)
    assert page.url == f"{site}/admin/login/"
    page.goto(f"{site}/admin/")
    page.wait_for_url("**/admin/login/**")
    page.click(BUTTON)
    page.wait_for_url("**/interaction/**")  # the provider asks anew: its own session has ended, too


def test_a_role_that_the_provider_changed_shows_at_the_next_login(page: Any, site: str, visitor: Visitor) -> None:
    page.goto(f"{site}/admin/")
    log_in_there(page, visitor)
    credentials = page.locator("a[href='/admin/orgs/providercredential/']")
    assert credentials.count() == 0
    log_out(page)
    visitor.change(**{"custom:userRole": "admin"})
    page.goto(f"{site}/admin/")
    log_in_there(page, visitor)
    assert credentials.count() > 0
    assert Membership.objects.get(user=visitor.user).role == "admin"


def test_while_the_providers_session_lasts_a_login_needs_no_form(page: Any, site: str, visitor: Visitor) -> None:
    page.goto(f"{site}/admin/")
    log_in_there(page, visitor)
    page.context.clear_cookies(name="sessionid")
    page.goto(f"{site}/admin/orgs/application/")
    page.click(BUTTON)
    page.wait_for_url(f"{site}/admin/orgs/application/")


def test_who_has_no_place_here_is_told_so_and_finds_the_way_back(page: Any, site: str, visitor: Visitor) -> None:
    visitor.change(**{"custom:orgId": str(uuid4())})
    page.goto(f"{site}/admin/")
    page.click(BUTTON)
    page.wait_for_url("**/interaction/**")
    page.fill("[name=login]", visitor.subject)
    page.click("button")
    page.wait_for_url("**/oauth2/idpresponse**")
    assert "Your account names no organization that is known here." in page.inner_text("body")
    page.click("text=Back to the login")
    page.wait_for_url(f"{site}/admin/login/")
    page.goto(f"{site}/admin/")
    page.wait_for_url("**/admin/login/**")
