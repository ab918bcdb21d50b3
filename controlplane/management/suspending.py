"""Stopping an organization, an application or a person, and letting them go on: for the two commands that do it."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.core.management.base import CommandError
from django.db import models

from apps.audit.changes import state_of
from apps.orgs.admins import only_admin_of, said_of
from apps.orgs.models import Application, Organization, User
from controlplane.management.operating import (
    Done,
    OperatorCommand,
    find_application,
    find_organization,
    find_user,
    recorded,
)

_FIND: dict[str, Callable[[str], models.Model]] = {
    "organization": find_organization,
    "application": find_application,
    "user": find_user,
}


class TurningCommand(OperatorCommand):
    """Turn one of them off or on again, with the change record. What is so already is left alone."""

    serves: ClassVar[bool]
    action: ClassVar[str]
    became: ClassVar[str]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which one."""
        super().add_arguments(parser)
        parser.add_argument("kind", choices=list(_FIND))
        parser.add_argument("which", help="Id or name; of an application organization/application.")

    def do(self, **options: Any) -> Done:
        """Turn it."""
        row = _FIND[options["kind"]](options["which"])
        facts = {"kind": options["kind"], "id": str(row.pk), "state": self.became}
        if _is_served(row) is self.serves:
            raise CommandError(f"The {options['kind']} {row} is {self.became} already.")
        before, reason = state_of(row), options["reason"]
        if isinstance(row, User) and not self.serves:
            reason = " ".join(filter(None, [reason, said_of(only_admin_of(row))]))
        _turn(row, self.serves)
        recorded(row, self.action, _place_of(row), before=before, reason=reason)
        return Done(f"The {options['kind']} {row} is {self.became}, from the next request on.", facts)


def _is_served(row: models.Model) -> bool:
    return row.state == Organization.State.ACTIVE if isinstance(row, Organization) else bool(getattr(row, "is_active"))  # noqa: B009


def _turn(row: models.Model, serves: bool) -> None:
    if isinstance(row, Organization):
        row.state = Organization.State.ACTIVE if serves else Organization.State.SUSPENDED
        row.save(update_fields=["state"])
    elif isinstance(row, Application | User):
        row.is_active = serves
        row.save(update_fields=["is_active"])


def _place_of(row: models.Model) -> UUID | None:
    return row.pk if isinstance(row, Organization) else getattr(row, "organization_id", None)
