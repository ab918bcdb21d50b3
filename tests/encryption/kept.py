"""Credentials for the tests of their encryption."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from django.core.management import CommandError, call_command
from django.db import connection, transaction

from apps.orgs.models import DataKey, Organization, ProviderCredential


def an_organization() -> Organization:
    return Organization.objects.create(name=f"org {uuid4()}")


def kept(organization: Organization | None, secret: str, **fields: Any) -> ProviderCredential:
    """Store a credential with a secret, and read it back."""
    given = {"name": f"credential {uuid4()}", "provider": "openai", **fields}
    row = ProviderCredential(organization=organization, **given)
    with transaction.atomic():
        row.set_secret(secret)
        row.save()
    return read(row)


def read(row: ProviderCredential) -> ProviderCredential:
    return ProviderCredential.objects.select_related("data_key").get(pk=row.pk)


def key_of(row: ProviderCredential) -> DataKey:
    found = read(row).data_key
    assert found is not None
    return found


def execute(statement: str, *values: Any) -> None:
    """Change rows as whoever has the database may."""
    sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute(statement, [value.hex if sqlite and isinstance(value, UUID) else value for value in values])
        assert cursor.rowcount == 1


@contextmanager
def without_triggers() -> Iterator[None]:
    """Be somebody to whom the database's triggers do not speak: a superuser who means harm."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
        yield


def rotate(*options: str) -> str:
    """Rotate everything in this process's database; return what was said. Other tests' broken rows are not ours."""
    said = io.StringIO()
    try:
        call_command("rotate_encryption", *options, stdout=said, stderr=said)
    except CommandError as error:
        said.write(str(error))
    return said.getvalue()
