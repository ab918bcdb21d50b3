"""Secrets that were encrypted under ENCRYPTION_KEYS themselves are encrypted under data keys.

What cannot be read stays as it is: it was of no use before, and is shown as unreadable after. The way back would need
the old form again, so there is none.
"""

import base64
import logging

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import migrations

from apps.orgs import data_keys
from apps.orgs.encryption import Place, encrypt
from apps.orgs.wrapping import Wrapped

logger = logging.getLogger(__name__)


def encrypt_anew(apps, schema_editor):
    credentials = apps.get_model("orgs", "ProviderCredential").objects
    for row in list(credentials.exclude(encrypted_secret="")):
        if not row.encrypted_secret.startswith("v1."):
            continue
        try:
            secret = read_old(row.encrypted_secret, f"{row.organization_id}|provider_credential|secret|{row.id}")
        except (ValueError, KeyError, InvalidTag):
            logger.warning("The secret of provider credential %s cannot be read and stays as it is.", row.id)
            continue
        row.data_key = current_key(apps.get_model("orgs", "DataKey"), row.organization_id)
        wrapped = Wrapped(row.data_key.wrapped_by, row.data_key.wrapped)
        place = Place(
            organization=row.organization_id,
            table="orgs_providercredential",
            column="encrypted_secret",
            row=row.id,
            data_key=row.data_key.id,
            bound=(row.provider, row.base_url),
        )
        key = data_keys.opened(row.data_key.id, row.organization_id, wrapped)
        row.encrypted_secret = encrypt(secret, key, place)
        row.save(update_fields=["encrypted_secret", "data_key"])


def read_old(stored, context):
    _, key_id, encoded = stored.split(".", 2)
    sealed = base64.urlsafe_b64decode(encoded)
    key = AESGCM(settings.ENCRYPTION_KEYS[key_id][:32])
    return key.decrypt(sealed[:12], sealed[12:], context.encode()).decode()


def current_key(model, organization_id):
    found = model.objects.filter(organization_id=organization_id, retired_at=None).first()
    if found is None:
        found = model(organization_id=organization_id)
        wrapped = data_keys.make(found.id, organization_id)
        found.wrapped_by, found.wrapped = wrapped.by, wrapped.text
        found.save()
    return found


class Migration(migrations.Migration):
    dependencies = [("orgs", "0004_data_keys")]

    operations = [migrations.RunPython(encrypt_anew)]
