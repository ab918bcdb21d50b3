"""What the commands share that change the configuration: one transaction with its records, and one answer.

The records name the operating system's user and the door ``command``.
"""

import getpass
import json
import os
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import models, transaction

from apps.audit.changes import Actor, record_change, state_of
from apps.orgs.models import Application, Organization, User

M = TypeVar("M", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did: in a sentence for people, and as facts for scripts."""

    sentence: str
    facts: dict[str, Any]


class OperatorCommand(BaseCommand):
    """A command that does one thing, records it and says it."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take how to answer, and why it is done."""
        parser.add_argument("--json", action="store_true", help="Answer with one JSON object.")
        parser.add_argument("--reason", default="", help="Why, for the change record.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it in one transaction, and say what was done."""
        try:
            with transaction.atomic():
                done = self.do(**options)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        self.stdout.write(json.dumps(done.facts) if options["json"] else done.sentence)

    def do(self, **options: Any) -> Done:
        """Do it. Raises `CommandError` or `ValidationError` for what cannot be done."""
        raise NotImplementedError


def operator() -> Actor:
    """Return who runs the command, as a change record says it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without an entry, as in some containers
        name = f"uid {os.getuid()}"
    return Actor(None, name, "command")


def recorded(row: models.Model, action: str, organization_id: UUID | None, **said: Any) -> None:
    """Append the record of what a command made of ``row``; ``said``: before, and reason."""
    record_change(operator(), action, row, organization_id=organization_id, after=state_of(row), **said)


def find_organization(said: str) -> Organization:
    """Return the organization of an id or a name. Raises `CommandError`."""
    return _one(Organization.objects.select_for_update(), "organization", said, name=said)


def find_application(said: str) -> Application:
    """Return the application of an id, or of ``organization/application`` in names. Raises `CommandError`."""
    organization, _, name = said.rpartition("/")
    rows = Application.objects.select_for_update(of=("self",)).select_related("organization")
    return _one(rows, "application", said, name=name, organization__name=organization)


def find_user(said: str) -> User:
    """Return the user of an id or a username. Raises `CommandError`."""
    return _one(User.objects.select_for_update(), "user", said, username=said)


def _one(rows: "models.QuerySet[M]", kind: str, said: str, **named: str) -> M:
    try:
        row = rows.filter(pk=UUID(said)).first()
    except ValueError:
        row = rows.filter(**named).first()
    if row is None:
        raise CommandError(f"There is no {kind} of this id or name: {said}")
    return row
