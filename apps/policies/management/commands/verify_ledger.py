"""``manage.py verify_ledger``: prove that the money adds up, or name what does not."""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from apps.policies.ledger import prove


class Command(BaseCommand):
    """Prove that every budget equals its ledger, and the ledger the records. Exits with 1 and names what differs."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take an organization's id, to look at that one alone."""
        parser.add_argument("--organization", type=UUID, help="Its id. Left out: everything, with the platform's caps.")

    def handle(self, *args: Any, organization: UUID | None, **options: Any) -> None:
        """Compare, and say what was compared."""
        proof = prove(organization)
        for difference in proof.differences:
            self.stderr.write(difference)
        compared = ", ".join(f"{count} {name}" for name, count in proof.compared.items())
        if proof.differences:
            raise CommandError(f"The money does not add up: {len(proof.differences)} differences in {compared}.")
        self.stdout.write(f"The money adds up: {compared}.")
