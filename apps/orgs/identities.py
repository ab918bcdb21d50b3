"""Who a token's subject is here, and what its claims make of them.

``custom:orgId``, ``custom:appId`` and ``custom:userRole`` of an ID token decide organization, application and role.
They are taken over at each login, and by the API from each token that is newer than the last one that was taken over.
So whoever spoke last holds, and a token that was seen does not undo what an admin changed here since. What is granted
here alone is the platform: no claim makes a superadmin.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from apps.audit import fence
from apps.audit.changes import Actor, record_change, state_of
from apps.orgs import jwts
from apps.orgs.jwts import Claims
from apps.orgs.models import ApiKey, Application, Identity, Membership, Organization, User
from apps.orgs.roles import Role

MEMBER_ROLES = frozenset(role.value for role in Role) - {Role.SUPERADMIN.value}
NOBODYS = UUID(int=0)
REASON = "As the identity provider's claims say."


class NotAdmitted(Exception):
    """The identity provider vouches for them, and they have no place here. The message is theirs to read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where claims put a person."""

    organization: Organization
    application: Application | None
    role: Role


@fence.everything()
def admit(claims: Claims, via: str, address: str | None = None) -> User:
    """Take over what an ID token says of a person, who may be new; return them.

    ``via`` is the door that change records name. Raises `NotAdmitted`; then nothing is changed.
    """
    try:
        return _admit(claims, via, address)
    except IntegrityError:  # they came through two doors at once for the first time
        return _admit(claims, via, address)


@fence.everything()
def key_of(claims: Claims) -> ApiKey | None:
    """Return what the API does a token's work with: a key of its person that is not stored and ends with the token.

    It is for the organization that an ID token names, or for the only one of its person. ``None``: there is no such
    person, or not in that organization. Raises `NotAdmitted`.
    """
    identity = _identities(claims).first()
    if claims.use == "id" and _is_news(claims, identity) and not (identity and not identity.user.is_active):
        admit(claims, "api")
        identity = _identities(claims).first()
    if identity is None:
        return None
    user = identity.user
    memberships = list(user.memberships.select_related("organization", "application"))
    if claims.use == "id" and claims.organization:
        memberships = [one for one in memberships if one.organization_id == _id(claims.organization)]
    if len(memberships) != 1:
        return _without_organization(claims, user) if user.is_superuser else None
    return _key(claims, user, memberships[0])


def find(text: str) -> ApiKey | None:
    """Return the key of a token's person as `key_of` does. Raises also `RefusedToken` and `SigningKeysUnavailable`."""
    return key_of(jwts.verify(text))


def user_of_subject(claims: Claims) -> User | None:
    """Return who a token's subject is here, whatever the claims say."""
    identity = _identities(claims).first()
    return identity.user if identity else None


def place_of(claims: Claims) -> Place:
    """Return where an ID token's claims put its person. Raises `NotAdmitted`."""
    organization = Organization.objects.filter(pk=_id(claims.organization)).first()
    if organization is None:
        raise NotAdmitted("Your account names no organization that is known here.")
    if claims.role not in MEMBER_ROLES:
        raise NotAdmitted("Your account has no role that is known here.")
    application = None
    if claims.application:
        application = organization.applications.filter(pk=_id(claims.application)).first()
        if application is None:
            raise NotAdmitted("Your account names no application that is known in your organization.")
    return Place(organization, application, Role(claims.role))


@transaction.atomic
def _admit(claims: Claims, via: str, address: str | None) -> User:
    if not claims.email_verified or not claims.email:
        raise NotAdmitted("The e-mail address of your account is not verified.")
    identity = _identities(claims).select_for_update(of=("self",)).first()
    user = identity.user if identity else None
    if user is not None and not user.is_active:
        raise NotAdmitted("Your account is disabled here.")
    if identity is not None and _is_outdated(claims, identity):
        return identity.user  # something newer was taken over while this one waited
    place = None if user is not None and _is_of_the_platform(user, claims) else place_of(claims)
    if user is None:
        user = _newcomer(claims)
    actor = Actor(user.pk, user.username, via, address)
    if identity is None:
        identity = Identity.objects.create(user=user, issuer=claims.issuer, subject=claims.subject)
        record_change(
            actor, "create", user, organization_id=_organization_id(place), after=state_of(user), reason=REASON
        )
    _describe(user, claims, actor, place)
    if place is not None:
        _settle(user, place, actor)
    identity.claims_at = datetime.fromtimestamp(claims.issued_at, UTC)
    # This column alone: the others tell every process to read its configuration again.
    identity.save(update_fields=["claims_at"])
    return User.objects.get(pk=user.pk)


def _is_of_the_platform(user: User, claims: Claims) -> bool:
    return user.is_superuser and (not claims.organization or claims.role == Role.SUPERADMIN.value)


def _newcomer(claims: Claims) -> User:
    taken = User.objects.filter(username__iexact=claims.email).exists()
    username = claims.subject if taken or len(claims.email) > 150 else claims.email
    return User.objects.create_user(username[:150], email=claims.email[:254], full_name=claims.name[:200])


def _describe(user: User, claims: Claims, actor: Actor, place: Place | None) -> None:
    """Keep address and name as the provider has them."""
    before = state_of(user)
    user.email, user.full_name = claims.email[:254], claims.name[:200] or user.full_name
    after = state_of(user)
    if after != before:
        user.save(update_fields=["email", "full_name"])
        organization = _organization_id(place)
        record_change(actor, "change", user, organization_id=organization, before=before, after=after, reason=REASON)


def _settle(user: User, place: Place, actor: Actor) -> None:
    """Make the person a member where the claims put them, and nowhere else."""
    for other in user.memberships.exclude(organization=place.organization).select_related("organization"):
        before, pk = state_of(other), other.pk
        other.delete()
        other.pk = pk
        record_change(actor, "delete", other, organization_id=other.organization_id, before=before, reason=REASON)
    membership = user.memberships.filter(organization=place.organization).first()
    known = state_of(membership) if membership else None
    membership = membership or Membership(user=user, organization=place.organization)
    membership.role, membership.application = place.role.value, place.application
    after = state_of(membership)
    if after != known:
        membership.save()
        action = "change" if known else "create"
        organization = place.organization.pk
        record_change(actor, action, membership, organization_id=organization, before=known, after=after, reason=REASON)


def _identities(claims: Claims) -> "QuerySet[Identity]":
    return Identity.objects.filter(issuer=claims.issuer, subject=claims.subject).select_related("user")


def _is_news(claims: Claims, identity: Identity | None) -> bool:
    if identity is None or identity.claims_at is None:
        return True
    return claims.issued_at > identity.claims_at.timestamp()


def _is_outdated(claims: Claims, identity: Identity) -> bool:
    return identity.claims_at is not None and claims.issued_at < identity.claims_at.timestamp()


def _key(claims: Claims, user: User, membership: Membership) -> ApiKey:
    return ApiKey(
        id=None,
        organization=membership.organization,
        application=membership.application,
        user=user,
        expires_at=claims.ends_at,
    )


def _without_organization(claims: Claims, user: User) -> ApiKey:
    return ApiKey(id=None, user=user, expires_at=claims.ends_at)


def _organization_id(place: Place | None) -> UUID | None:
    return place.organization.pk if place else None


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return NOBODYS
