"""``manage.py createsuperuser``: Django's command, with the change record of who was made a superadmin."""

from typing import Any

from django.contrib.auth.management.commands import createsuperuser
from django.db import transaction

from apps.orgs.models import User
from controlplane.management.operating import recorded


class Command(createsuperuser.Command):
    """Create a superadmin."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the user with the record."""
        with transaction.atomic():
            known = set(User.objects.filter(is_superuser=True).values_list("pk", flat=True))
            super().handle(*args, **options)
            for user in User.objects.filter(is_superuser=True).exclude(pk__in=known):
                recorded(user, "create", None)
