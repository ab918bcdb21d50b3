"""``manage.py rotate_key``: replace an API key and print the successor, this once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from apps.orgs.models import ApiKey
from apps.policies.rotation import rotate
from controlplane.management.operating import Done, OperatorCommand, operator


class Command(OperatorCommand):
    """Issue a successor of a key and end the key, at once or after a grace, with their change records."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which key, and how long it still works."""
        super().add_arguments(parser)
        parser.add_argument("key", help="The key's id, or its prefix: the eight characters after lcp_.")
        parser.add_argument("--grace-seconds", type=int, default=0, help="How long the old key still works.")

    def do(self, **options: Any) -> Done:
        """Rotate it."""
        if options["grace_seconds"] < 0:
            raise CommandError("--grace-seconds must be 0 or more.")
        old = _find(options["key"])
        issued = rotate(old, operator(), timedelta(seconds=options["grace_seconds"]), options["reason"])
        facts = {"id": str(issued.row.pk), "prefix": issued.row.prefix, "key": issued.text, "replaces": str(old.pk)}
        return Done(f"{issued.text}\nThis is the only time that the key is shown. It replaces {old.pk}.", facts)


def _find(said: str) -> ApiKey:
    rows = ApiKey.objects.select_for_update(of=("self",))
    prefix = said.removeprefix("lcp_")
    if len(prefix) > 36:  # longer than an id: a key's own text, which nobody should have to type, nor an error to show
        raise CommandError("Give the key's id or its prefix, not the key.")
    try:
        row = rows.filter(pk=UUID(said)).first()
    except ValueError:
        row = rows.filter(prefix=prefix).first()
    if row is None:
        raise CommandError(f"There is no key of this id or prefix: {said}")
    return row
