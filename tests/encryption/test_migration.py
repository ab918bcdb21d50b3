"""Secrets of the form before data keys come through the migration, each to its own row and no other."""

import base64
import importlib
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.apps import apps
from django.conf import settings
from django.test import override_settings

from apps.orgs.encryption import DecryptionError
from apps.orgs.models import Organization, ProviderCredential
from tests.encryption.kept import an_organization, kept, key_of, read

SECRET = "sk-stored-by-the-release-before"
OLD_KEY = bytes(range(40))  # of a ring whose keys had more bytes than are used
migration = importlib.import_module("apps.orgs.migrations.0005_secrets_under_data_keys")


def stored_as_before(organization: Organization | None, **fields: Any) -> ProviderCredential:
    row = kept(organization, "replaced below", **fields)
    nonce, context = os.urandom(12), f"{row.organization_id}|provider_credential|secret|{row.id}"
    sealed = nonce + AESGCM(OLD_KEY[:32]).encrypt(nonce, SECRET.encode(), context.encode())
    text = f"v1.before.{base64.urlsafe_b64encode(sealed).decode()}"
    ProviderCredential.objects.filter(pk=row.pk).update(encrypted_secret=text, data_key=None)
    return read(row)


def migrate() -> None:
    with override_settings(ENCRYPTION_KEYS={**settings.ENCRYPTION_KEYS, "before": OLD_KEY}):
        migration.encrypt_anew(apps, None)


def test_each_old_secret_is_readable_under_the_key_of_its_owner_and_a_second_run_changes_nothing() -> None:
    organization = an_organization()
    addressed = {"provider": "openai_compatible", "base_url": "https://llm.example/v1"}
    rows = [stored_as_before(organization), stored_as_before(organization, **addressed), stored_as_before(None)]
    new = kept(organization, "sk-already-under-a-data-key")
    migrate()
    assert [read(row).secret() for row in rows] == [SECRET] * 3
    assert [key_of(row).organization_id for row in rows] == [organization.id, organization.id, None]
    assert key_of(rows[0]) == key_of(rows[1]) == key_of(new)
    stored = [read(row).encrypted_secret for row in (*rows, new)]
    migrate()
    assert [read(row).encrypted_secret for row in (*rows, new)] == stored


def test_an_old_secret_that_cannot_be_read_stays_as_it_is_and_holds_up_no_other() -> None:
    organization = an_organization()
    broken, whole = stored_as_before(organization), stored_as_before(organization)
    text = broken.encrypted_secret.replace("v1.before.", "v1.lost.")
    ProviderCredential.objects.filter(pk=broken.pk).update(encrypted_secret=text)
    migrate()
    assert read(whole).secret() == SECRET
    assert read(broken).encrypted_secret == text
    with pytest.raises(DecryptionError):
        read(broken).secret()
