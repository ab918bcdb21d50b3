"""``manage.py issue_key``: make an API key and print it, this once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from apps.orgs import keys
from apps.orgs.models import Organization, User
from controlplane.management.operating import (
    Done,
    OperatorCommand,
    find_application,
    find_organization,
    find_user,
    recorded,
)


class Command(OperatorCommand):
    """Issue a key of an application or of a person, with its change record."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whose key it is, its name, and until when it works."""
        super().add_arguments(parser)
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("--application", help="Id, or organization/application: a key that calls models.")
        owner.add_argument("--user", help="Id or username: a key that acts with the person's role.")
        parser.add_argument("--organization", help="Id or name: hold a person's key to the role there.")
        parser.add_argument("--name", required=True, help="Where it is used.")
        parser.add_argument("--days", type=int, help="How long it works. Left out: until it is revoked.")

    def do(self, **options: Any) -> Done:
        """Issue it."""
        if options["days"] is not None and options["days"] < 1:
            raise CommandError("--days must be 1 or more.")
        expires_at = timezone.now() + timedelta(days=options["days"]) if options["days"] else None
        issued = keys.issue(name=options["name"], expires_at=expires_at, **_owner(options))
        recorded(issued.row, "create", issued.row.organization_id, reason=options["reason"])
        facts = {"id": str(issued.row.pk), "prefix": issued.row.prefix, "key": issued.text}
        return Done(f"{issued.text}\nThis is the only time that the key is shown. Its id is {issued.row.pk}.", facts)


def _owner(options: dict[str, Any]) -> dict[str, Any]:
    if options["application"]:
        if options["organization"]:
            raise CommandError("--organization goes with --user: an application has its own.")
        application = find_application(options["application"])
        return {"application": application, "organization": application.organization}
    user = find_user(options["user"])
    return {"user": user, "organization": _place(user, options["organization"])}


def _place(user: User, said: str | None) -> Organization | None:
    organization = find_organization(said) if said else None
    if organization and not user.is_superuser and organization.pk not in user.roles():
        raise CommandError("The user is not a member of the organization.")
    return organization
