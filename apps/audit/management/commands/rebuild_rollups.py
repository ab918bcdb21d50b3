"""``manage.py rebuild_rollups``: counts usage again, day by day, from the records."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.utils.dateparse import parse_date

from apps.audit.rollups import rebuild


class Command(BaseCommand):
    """Exchanges each day's sums for new ones. Numbers are right all the time; an end halfway loses nothing."""

    help = (
        "Count usage again from the records, a day at a time. Goes on where an unfinished run ended. "
        "Days whose records are gone keep their sums."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the day to begin with."""
        parser.add_argument("--since", help="The day to begin with (UTC), such as 2026-01-31.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Count again, and say each day that is done."""
        since = _day(options["since"]) if options["since"] else None
        try:
            for day, last in rebuild(since):
                self.stdout.write(f"{day} is counted; the last day is {last}.")
        except OperationalError as error:
            raise CommandError(f"{error} Run the command again: it goes on from here.") from error


def _day(text: str) -> Any:
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        raise CommandError(f"{text!r} is no day; write it as 2026-01-31.")
    return day
