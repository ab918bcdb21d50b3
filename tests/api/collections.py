"""What each collection's objects are made from and changed to, for tests that go through all collections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.api.cast import Cast, unique


@dataclass(frozen=True)
class Sample:
    """One collection: its path, a body that makes an object, and a change that is allowed."""

    path: str
    body: Callable[[Cast], dict[str, Any]]
    change: dict[str, Any]
    editor: str = "admin"

    def __str__(self) -> str:
        return self.path


def _route(cast: Cast) -> dict[str, Any]:
    credential = cast.admin.made("provider-credentials", _credential(cast))
    return {"organization": str(cast.organization.id), "model": unique("gpt"), "credential": credential["id"]}


def _credential(cast: Cast) -> dict[str, Any]:
    return {
        "organization": str(cast.organization.id),
        "name": unique("vendor"),
        "provider": "openai",
        "secret": "sk-test-0123456789abcd",
    }


def _membership(cast: Cast) -> dict[str, Any]:
    user = cast.superadmin.made("users", {"username": unique("new")})
    return {"organization": str(cast.organization.id), "user": user["id"], "role": "developer"}


SAMPLES = [
    Sample("organizations", lambda cast: {"name": unique("Org")}, {"state": "suspended"}, "superadmin"),
    Sample(
        "applications",
        lambda cast: {"organization": str(cast.organization.id), "name": unique("app")},
        {"is_active": False},
    ),
    Sample("keys", lambda cast: {"application": str(cast.application.id), "name": unique("key")}, {"name": "renamed"}),
    Sample(
        "policies",
        lambda cast: {
            "organization": str(cast.organization.id),
            "kind": "model_restriction",
            "config": {"allow": ["sim-*"]},
        },
        {"mode": "shadow"},
    ),
    Sample("users", lambda cast: {"username": unique("someone")}, {"full_name": "Some One"}, "superadmin"),
    Sample("memberships", _membership, {"role": "auditor"}, "superadmin"),
    Sample("provider-credentials", _credential, {"is_active": False}),
    Sample("routes", _route, {"priority": 3}),
    Sample(
        "alert-destinations",
        lambda cast: {
            "organization": str(cast.organization.id),
            "name": unique("on call"),
            "channel": "webhook",
            "kinds": ["budget_threshold", "key_expiring"],
            "url": "https://alerts.invalid/hook",
        },
        {"kinds": ["provider_down"]},
    ),
    Sample(
        "prices",
        lambda cast: {"model": unique("m"), "input_usd_per_million": "1.50", "output_usd_per_million": "2"},
        {"provider": "openai"},
        "superadmin",
    ),
]
OF_AN_ORGANIZATION = [sample for sample in SAMPLES if sample.path not in {"organizations", "users", "prices"}]
