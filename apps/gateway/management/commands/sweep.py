"""``manage.py sweep``: resolve requests whose process died."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.gateway.sweeper import sweep


class Command(BaseCommand):
    """Write the final record of every request past its deadline."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep once and say how many were resolved."""
        self.stdout.write(f"Resolved {sweep()} interrupted requests.")
