"""``manage.py create_organization``: make a tenant. It has no policies, so it may call nothing yet."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from apps.orgs.models import Organization
from controlplane.management.operating import Done, OperatorCommand, recorded


class Command(OperatorCommand):
    """Create an organization, with its change record."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the name."""
        super().add_arguments(parser)
        parser.add_argument("name")

    def do(self, **options: Any) -> Done:
        """Create it."""
        if Organization.objects.filter(name__iexact=options["name"]).exists():
            raise CommandError("An organization of this name already exists.")
        organization = Organization(name=options["name"])
        organization.full_clean()
        organization.save()
        recorded(organization, "create", organization.pk, reason=options["reason"])
        facts = {"id": str(organization.pk), "name": organization.name, "state": organization.state}
        return Done(f"Created the organization {organization.name}: {organization.pk}", facts)
