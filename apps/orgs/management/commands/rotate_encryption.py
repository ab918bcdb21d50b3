"""``manage.py rotate_encryption``: bring stored secrets under the current keys."""

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.orgs.encryption import KeysUnavailable
from apps.orgs.encryption_rotation import renew_data_keys, rewrap_data_keys


class Command(BaseCommand):
    """Wrap the data keys by the current wrapping key; on demand, replace the data keys themselves.

    May be killed and run again, and run beside traffic. Exits with 1 and names what cannot be read.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to replace beside the wrapping."""
        parser.add_argument(
            "--data-keys",
            action="store_true",
            help="Also make new data keys and encrypt every secret under them, or finish an earlier run that did.",
        )

    def handle(self, *args: Any, data_keys: bool, **options: Any) -> None:
        """Rotate, and say what was done."""
        try:
            self._rotate(data_keys)
        except KeysUnavailable as error:
            raise CommandError(f"{error} What was done so far stays; run it again.") from error

    def _rotate(self, data_keys: bool) -> None:
        rewrapped = rewrap_data_keys()
        self.stdout.write(f"Wrapped {rewrapped.done} data keys by {rewrapped.current}.")
        self._name(rewrapped.unreadable, "Data key {} cannot be opened by any wrapping key now.")
        unreadable = len(rewrapped.unreadable)
        if data_keys:
            renewed = renew_data_keys()
            begun = " This finished an earlier run; to replace the keys once more, run it again."
            self.stdout.write(
                f"Encrypted {renewed.secrets} secrets under new data keys and removed {renewed.removed} old keys."
                f"{begun if renewed.continued else ''}"
            )
            self._name(renewed.unreadable, "The secret of {} cannot be read. Enter it again.")
            unreadable += len(renewed.unreadable)
        if unreadable:
            raise CommandError(f"{unreadable} could not be read and are as they were.")

    def _name(self, ids: Iterable[object], sentence: str) -> None:
        for found in ids:
            self.stderr.write(sentence.format(found))
