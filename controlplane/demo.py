"""The demo organization that a developer's first run creates: people of every role, an application, a key."""

import json
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from apps.audit.changes import Actor, record_change, state_of
from apps.audit.money import nano_from_usd
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Membership, Organization, User
from apps.orgs.roles import Role
from apps.policies.models import Policy, Price

ORGANIZATION, APPLICATION = "Demo", "Demo application"
_ACTOR = Actor(id=None, name="first run", via="command")
_POLICIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Allowed models", "model_restriction", {"allow": ["sim-*", "gpt-*", "claude-*"]}),
    (
        "No secrets to providers",
        "guardrail",
        {"detectors": {"secret": "block"}, "direction": "input", "unscannable": "allow"},
    ),
    ("Fair use", "rate_limit", {"requests": 6_000_000, "per": "minute"}),
)


def ensure_demo(path: Path, base: str) -> dict[str, Any] | None:
    """Create the demo organization in an empty database; describe it for the server at ``base``.

    Returns the content of ``.demo.json``, or ``None`` where the database holds other organizations and no demo.
    """
    known = _known(path)
    if known is None:
        if Organization.objects.exists():
            return None
        known = _create()
    demo = {"base_url": f"{base}/v1", "admin_url": f"{base}/admin/", **known}
    path.touch(mode=0o600)
    path.write_text(json.dumps(demo, indent=2) + "\n")
    return demo


def _known(path: Path) -> dict[str, Any] | None:
    """Read what an earlier run wrote, if it is about this database."""
    if not path.exists():
        return None
    demo: dict[str, Any] = json.loads(path.read_text())
    prefix = keys.prefix_of(demo["api_key"])
    row = ApiKey.objects.filter(prefix=prefix).first()
    usable = row is not None and row.pepper_id in settings.KEY_PEPPERS
    if row is None or not usable or keys.digest(demo["api_key"], row.pepper_id) != row.digest:
        return None
    return {name: value for name, value in demo.items() if name not in ("base_url", "admin_url")}


@transaction.atomic
def _create() -> dict[str, Any]:
    organization = Organization.objects.create(name=ORGANIZATION)
    application = Application.objects.create(organization=organization, name=APPLICATION)
    for row in (organization, application):
        record_change(_ACTOR, "create", row, organization_id=organization.id, after=state_of(row))
    _create_policies(organization)
    users = [_create_user(organization, role) for role in Role]
    superadmin = User.objects.get(username=Role.SUPERADMIN.value)
    return {
        "api_key": _issue(organization=organization, application=application, name="Demo key"),
        "admin_api_key": _issue(user=superadmin, name="Demo admin key"),
        "organization": str(organization.id),
        "application": str(application.id),
        "users": users,
    }


def _create_policies(organization: Organization) -> None:
    for name, kind, config in _POLICIES:
        policy = Policy(organization=organization, name=name, kind=kind, config=config)
        policy.full_clean()
        policy.save()
        record_change(_ACTOR, "create", policy, organization_id=organization.id, after=state_of(policy))
    price = Price.objects.create(
        provider="simulated", model="sim-*", input_nano_usd=nano_from_usd("1"), output_nano_usd=nano_from_usd("2")
    )
    record_change(_ACTOR, "create", price, organization_id=None, after=state_of(price))


def _issue(**owner: Any) -> str:
    issued = keys.issue(**owner)
    organization_id = issued.row.organization_id
    record_change(_ACTOR, "create", issued.row, organization_id=organization_id, after=state_of(issued.row))
    return issued.text


def _create_user(organization: Organization, role: Role) -> dict[str, str]:
    password = secrets.token_urlsafe(12)
    if role is Role.SUPERADMIN:
        user = User.objects.create_superuser(role.value, password)
    else:
        user = User.objects.create_user(role.value, password)
        membership = Membership.objects.create(organization=organization, user=user, role=role.value)
        record_change(_ACTOR, "create", membership, organization_id=organization.id, after=state_of(membership))
    record_change(_ACTOR, "create", user, organization_id=organization.id, after=state_of(user))
    return {"username": role.value, "password": password, "role": role.value}
