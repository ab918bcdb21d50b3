"""Pictures of the admin for the documentation: `make screens`, or ``python -m screens [part of a name ...]``.

A picture is a `Screen` in `SCREENS`. To add one, add a line: a name (of its file in ``docs/screens/``), an address
below ``/admin/`` with names of `screens.lively.Lively` in braces, and who looks. ``act`` does on the page what comes
before the picture. The data come from `screens.lively`, which makes them through the server's own doors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Screen:
    """One picture."""

    name: str
    path: str
    person: str = "admin"
    """superadmin, admin, developer, auditor, or nobody."""
    width: int = 1280
    height: int = 720
    dark: bool = False
    act: Callable[[Any], None] | None = None


def _new_key(page: Any) -> None:
    page.fill("#id_name", "production")
    page.click("button[name=_save]")
    page.wait_for_selector("#api-key")


def _ask_the_policies(page: Any) -> None:
    page.fill("[name=model]", "gpt-4o")
    page.fill("[name=text]", "Which contracts end this quarter?")
    page.click("button[name=explain]")
    page.wait_for_selector("text=Effective policies")


PHONE = {"width": 390, "height": 844}
SCREENS = (
    Screen("login", "login/", person="nobody"),
    Screen("login-dark", "login/", person="nobody", dark=True),
    Screen("overview", ""),
    Screen("overview-dark", "", dark=True),
    Screen("overview-phone", "", **PHONE),  # type: ignore[arg-type]  # its sizes
    Screen("usage", "usage/?period=7d", height=900),
    Screen("usage-phone", "usage/?period=7d", **PHONE),  # type: ignore[arg-type]  # its sizes
    Screen("playground", "playground/?application={application}"),
    Screen("templates", "policies/policy/templates/{organization}/"),
    Screen("evidence", "audit/export/add/?kind=evidence&status=blocked", person="auditor"),
    Screen("requests", "audit/requestrecord/", height=660),
    Screen("requests-dark", "audit/requestrecord/", person="auditor", height=620, dark=True),
    Screen("requests-phone", "audit/requestrecord/", **PHONE),  # type: ignore[arg-type]  # its sizes
    Screen("refused-request", "audit/requestrecord/{refused}/change/", person="developer"),
    Screen("policies", "policies/policy/", height=640),
    Screen("new-policy", "policies/policy/add/"),
    Screen("guardrail", "policies/policy/add/?kind=guardrail"),
    Screen("guardrail-phone", "policies/policy/add/?kind=guardrail", **PHONE),  # type: ignore[arg-type]  # its sizes
    Screen(
        "effective-policies",
        "policies/policy/explain/application/{application}/",
        height=640,
        act=_ask_the_policies,
    ),
    Screen("new-key", "orgs/apikey/add/?application={application}", person="developer", act=_new_key),
    Screen("revoke-key", "orgs/apikey/{key}/revoke_key/"),
    Screen("delete-policy", "policies/policy/{policy}/delete/"),
    Screen("organization", "orgs/organization/{organization}/change/"),
    Screen("budgets", "policies/budget/", dark=True),
    Screen("alerts", "audit/alert/", height=560),
    Screen("alert-destination", "alerts/destination/{destination}/change/", height=900),
    Screen("changes", "policies/policy/{policy}/history/", person="auditor"),
    Screen("nothing-yet", "gateway/modelroute/?q=nothing"),
    Screen("no-such-page", "there/is/nothing/here/"),
)
