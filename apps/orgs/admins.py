"""The rule that an organization keeps an admin: nobody else in it could give the role back."""

from collections.abc import Collection
from uuid import UUID

from apps.orgs.models import Membership, Organization, User
from apps.orgs.roles import Role

LAST_ADMIN = "The organization would have no admin any more. Make somebody else an admin first."


def loses_its_admins(organization_id: UUID, ending: Collection[UUID]) -> bool:
    """Whether an organization has no active admin left once the memberships ``ending`` (ids) are no admins' any more.

    Holds the organization's row until the transaction ends: of two admins who end each other's role, one is second.
    """
    Organization.objects.select_for_update(no_key=True).filter(pk=organization_id).first()
    admins = Membership.objects.filter(organization_id=organization_id, role=Role.ADMIN.value, user__is_active=True)
    return admins.filter(pk__in=ending).exists() and not admins.exclude(pk__in=ending).exists()


def only_admin_of(user: User) -> list[Organization]:
    """Return the organizations that would have no active admin without ``user``."""
    mine = user.memberships.filter(role=Role.ADMIN.value).select_related("organization")
    return [one.organization for one in mine if loses_its_admins(one.organization_id, [one.pk])]


def said_of(organizations: Collection[Organization]) -> str:
    """Return a change record's reason for what leaves organizations without an admin; ``""`` for none."""
    return f"No admin is left in {', '.join(map(str, organizations))}." if organizations else ""
