"""``manage.py changepassword``: Django's command, with the change record."""

import getpass
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.db import transaction

from apps.audit.changes import record_change
from apps.orgs.models import User
from controlplane.management.operating import operator


class Command(changepassword.Command):
    """Set a user's password."""

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Set the password with the record."""
        named = User.objects.filter(username=options["username"] or getpass.getuser())
        with transaction.atomic():
            before = named.values_list("password", flat=True).first()
            said: str | None = super().handle(*args, **options)
            user = named.first()
            if user is not None and user.password != before:
                marks = {"password": "(set)"}, {"password": "(set anew)"}
                record_change(operator(), "change", user, organization_id=None, before=marks[0], after=marks[1])
        return said
