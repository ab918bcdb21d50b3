"""Checks an evidence pack against its manifest, as the script inside of it does."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.audit.evidence_check import report


class Command(BaseCommand):
    """``manage.py verify_evidence FILE``."""

    help = "Check that an evidence pack is as it was made; name what differs. Needs no database."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the pack's path."""
        parser.add_argument("file", help="The pack, as it was downloaded.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Say that all is as it was, or what is not and end with 1."""
        is_whole, lines = report(options["file"])
        if not is_whole:
            raise CommandError("\n".join(lines))
        self.stdout.write("\n".join(lines))
