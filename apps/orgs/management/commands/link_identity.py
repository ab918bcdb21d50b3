"""Tie a user who exists to a subject of the identity provider: how a superadmin comes to log in there."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.audit.changes import Actor, record_change
from apps.orgs.cognito import identity_provider
from apps.orgs.models import Identity, User


class Command(BaseCommand):
    """Links one identity."""

    help = "Tie a user to a subject (the claim 'sub') of the identity provider, so that they log in there."

    def add_arguments(self, parser: CommandParser) -> None:
        """Read whom and what."""
        parser.add_argument("username")
        parser.add_argument("subject")

    def handle(self, *args: Any, **options: Any) -> None:
        """Link them, with the record of it."""
        provider = identity_provider()
        if provider is None:
            raise CommandError("No identity provider is set up: set COGNITO_USER_POOL_ID and COGNITO_CLIENT_ID.")
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError("There is no user of this name.")
        identity = Identity(user=user, issuer=provider.issuer, subject=options["subject"])
        if Identity.objects.filter(issuer=identity.issuer, subject=identity.subject).exists():
            raise CommandError("The subject is already tied to a user.")
        with transaction.atomic():
            identity.save()
            after = {"issuer": identity.issuer, "subject": identity.subject}
            record_change(
                Actor(None, "link_identity", "command"), "link identity", user, organization_id=None, after=after
            )
        self.stdout.write(f"{user} logs in as {identity}.")
