"""``manage.py ensure_partitions``: create the audit tables' partitions of the months to come."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.audit import fence
from apps.audit.partitions import ensure_partitions


class Command(BaseCommand):
    """Create what is missing; safe to repeat."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the partitions and name them."""
        with fence.owning():
            created = ensure_partitions()
        self.stdout.write(", ".join(created) or "Every partition is there.")
