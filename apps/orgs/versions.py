"""The versions of the configuration: how a process knows that what it remembers still holds."""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.orgs.models import ConfigVersion
from apps.orgs.operations import PLATFORM

PLATFORM_SCOPE = UUID(PLATFORM)


class Versions(NamedTuple):
    """What a copy of an organization's configuration was read at."""

    platform: int
    organization: int


def read_versions(connection: BaseDatabaseWrapper, organizations: Iterable[UUID]) -> dict[UUID, Versions]:
    """Read the current versions of several organizations, each with the platform's, in one statement."""
    wanted = set(organizations)
    rows = dict(
        ConfigVersion.objects.using(connection.alias)
        .filter(scope__in=[PLATFORM_SCOPE, *wanted])
        .values_list("scope", "version")
    )
    platform = rows.get(PLATFORM_SCOPE, 0)
    return {scope: Versions(platform, rows.get(scope, 0)) for scope in wanted}
