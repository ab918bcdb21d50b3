"""Which rows a person may see and change: the one rule behind the admin and the API.

Every model that people reach is listed in `PATHS` with the lookup that leads to its organization; a model that is
not listed is reachable by superadmins alone.
"""

from typing import TypeVar
from uuid import UUID

from django.db import models
from django.db.models import QuerySet

from apps.orgs.models import User
from apps.orgs.roles import Action, Role, allows

PATHS: dict[str, str] = {
    "orgs.organization": "id",
    "orgs.application": "organization_id",
    "orgs.apikey": "organization_id",
    "orgs.user": "memberships__organization_id",
    "orgs.membership": "organization_id",
    "orgs.providercredential": "organization_id",
    "orgs.usagetag": "organization_id",
    "policies.policy": "organization_id",
    "policies.policyversion": "organization_id",
    "policies.budget": "organization_id",
    "policies.budgetalert": "organization_id",
    "policies.ledgerentry": "organization_id",
    "gateway.modelroute": "organization_id",
    "audit.requestrecord": "organization_id",
    "audit.requesttext": "organization_id",
    "audit.changerecord": "organization_id",
    "audit.alert": "organization_id",
    "alerts.destination": "organization_id",
    "alerts.delivery": "organization_id",
}
SHARED = frozenset({"policies.price"})
"""Models of the platform that every role may view if `roles.PERMISSIONS` says so."""

M = TypeVar("M", bound=models.Model)


def organizations_of(user: User, action: Action, label: str) -> set[UUID]:
    """Return the organizations in which a user's role allows ``action`` on ``label`` ("app.model", lower case)."""
    if not user.is_active:
        return set()
    return {organization for organization, role in user.roles().items() if allows(role, action, label)}


def visible(rows: "QuerySet[M]", user: User, action: Action = Action.VIEW) -> "QuerySet[M]":
    """Narrow ``rows`` to those on which ``user`` may do ``action``."""
    label = rows.model._meta.label_lower
    if user.is_active and user.is_superuser:
        return rows
    organizations = organizations_of(user, action, label)
    if label in SHARED:
        return rows if organizations else rows.none()
    if label not in PATHS or not organizations:
        return rows.none()
    scoped = rows.filter(**{f"{PATHS[label]}__in": organizations})
    # Only a path through another table can meet a row twice, and on millions of rows DISTINCT is dear.
    return scoped.distinct() if "__" in PATHS[label] else scoped


def reach(user: User, label: str) -> frozenset[UUID] | None:
    """Return the organizations whose ``label`` ("app.model") a user may see; ``None``: those of all."""
    if user.is_active and user.is_superuser:
        return None
    return frozenset(organizations_of(user, Action.VIEW, label))


def may(user: User, action: Action, label: str, organization_id: UUID | None = None) -> bool:
    """Whether ``user`` may do ``action`` on ``label`` in one organization, or with ``None`` in any of theirs."""
    if not user.is_active:
        return False
    if user.is_superuser:
        return True
    organizations = organizations_of(user, action, label)
    return organization_id in organizations if organization_id else bool(organizations)


def role_in(user: User, organization_id: UUID | None) -> Role | None:
    """Return the role a user holds in an organization; a superadmin's is the same everywhere."""
    if user.is_superuser:
        return Role.SUPERADMIN
    return user.roles().get(organization_id) if organization_id else None
