"""Secrets at rest: AES-256-GCM under a key of the operator's ring, bound to the row they belong to.

Stored form: ``v1.<key id>.<base64url of nonce (12 bytes) + ciphertext + tag>``.
"""

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_NONCE_BYTES = 12


class DecryptionError(Exception):
    """The text was made for another row, under a key that is not in the ring, or was altered."""


def encrypt(plain: str, context: str) -> str:
    """Encrypt ``plain`` under the ring's first key; only the same ``context`` will decrypt it."""
    key_id, key = next(iter(settings.ENCRYPTION_KEYS.items()))
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key[:32]).encrypt(nonce, plain.encode(), context.encode())
    return f"v1.{key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def decrypt(stored: str, context: str) -> str:
    """Return what `encrypt` was given. Raises `DecryptionError`."""
    try:
        _, key_id, encoded = stored.split(".", 2)
        sealed = base64.urlsafe_b64decode(encoded)
        key = settings.ENCRYPTION_KEYS[key_id][:32]
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode()).decode()
    except (ValueError, KeyError, InvalidTag) as error:
        raise DecryptionError("The secret cannot be decrypted: wrong row, wrong key, or altered.") from error
