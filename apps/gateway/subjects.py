"""Whose request is meant when a person asks what the policies say of an application, a user or a key."""

from uuid import UUID

from apps.orgs.models import ApiKey, Application, Organization, User
from apps.orgs.roles import Action
from apps.orgs.scoping import may, organizations_of, visible

KINDS = ("application", "user", "key")
POLICY = "policies.policy"


class NoSubject(Exception):
    """There is none, or none that the person may see."""


class UnclearSubject(ValueError):
    """It cannot be told in which organization the subject calls."""


def find_subject(person: User, kind: str, subject_id: UUID, organization_id: UUID | None = None) -> ApiKey:
    """Return the key that is meant; for an application or a user, one that is not stored, as a new one would be.

    ``organization_id`` says in which organization a user calls who is in several. Raises `NoSubject`, whether it is
    not there or not the person's to see, and `UnclearSubject`.
    """
    match kind:
        case "application":
            key = _of_application(person, subject_id)
        case "user":
            key = _of_user(person, subject_id, organization_id)
        case "key":
            key = _key(person, subject_id)
        case _:
            raise NoSubject
    if not may(person, Action.VIEW, POLICY, key.organization_id):
        raise NoSubject
    return key


def _of_application(person: User, subject_id: UUID) -> ApiKey:
    row = visible(Application.objects.select_related("organization"), person).filter(pk=subject_id).first()
    if row is None:
        raise NoSubject
    return ApiKey(organization=row.organization, application=row)


def _key(person: User, subject_id: UUID) -> ApiKey:
    rows = ApiKey.objects.select_related("organization", "application", "user")
    row = visible(rows, person).filter(pk=subject_id).first()
    if row is None:
        raise NoSubject
    if row.organization_id is None:
        raise UnclearSubject("The key belongs to no organization: it cannot call models.")
    return row


def _of_user(person: User, subject_id: UUID, organization_id: UUID | None) -> ApiKey:
    rows = User.objects.all() if person.pk == subject_id else visible(User.objects.all(), person)
    row = rows.filter(pk=subject_id).first()
    if row is None:
        raise NoSubject
    theirs: set[UUID] = set(row.roles())
    if not person.is_superuser:
        theirs &= organizations_of(person, Action.VIEW, POLICY)
    if organization_id is not None:
        theirs &= {organization_id}
    if not theirs:
        raise NoSubject
    if len(theirs) > 1:
        raise UnclearSubject("The user is in several organizations: name one.")
    return ApiKey(organization=Organization.objects.get(pk=theirs.pop()), user=row)
