"""Secrets at rest: AES-256-GCM under an organization's data key, bound to the one place where they are of use.

    wrapping key (KMS, or ENCRYPTION_KEYS) --wraps--> data key of an organization --encrypts--> its secrets

Stored form of a secret: ``v2.<base64url of nonce (12 bytes) + ciphertext + tag>``. Which data key it is under stands
beside it. Data keys are made, kept and opened in `apps.orgs.data_keys`, wrapped in `apps.orgs.wrapping`.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import Counter

KEY_BYTES = 32
PLATFORM = "platform"
"""Stands for the organization in what is bound to the platform's own rows."""
_NONCE_BYTES = 12
_FORM = "v2"

DECRYPTIONS = Counter("lcp_decryptions_total", "Decryptions of stored secrets.", ["purpose", "outcome"])


class DecryptionError(Exception):
    """The text was made for another place, under a key that is not to be had, or was altered. It stays so."""


class KeysUnavailable(Exception):
    """The service that opens data keys does not answer, or refuses for now. Later it may open them."""


class Purpose(StrEnum):
    """What a secret is decrypted for."""

    CALL = "call"
    """To call the provider with it: when a process reads an organization's configuration."""
    CHECK = "check"
    """To tell a person whether it can be."""
    TEST = "test"
    """To ask the provider for its models because a person wants to know whether the secret works."""
    ROTATION = "rotation"
    ALERT = "alert"
    """To send an alert with it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext belongs; anywhere else it does not decrypt.

    ``bound`` are values of the same row that the secret was given for, such as the address it goes to.
    """

    organization: UUID | None
    table: str
    column: str
    row: UUID
    data_key: UUID
    bound: tuple[str, ...] = ()

    def associated_data(self) -> bytes:
        """Return the place as the bytes that the cipher authenticates: no two places have the same."""
        owner = str(self.organization) if self.organization else PLATFORM
        parts = [_FORM, owner, self.table, self.column, str(self.row), str(self.data_key), *self.bound]
        return json.dumps(parts).encode()


def encrypt(plain: str, key: bytes, place: Place) -> str:
    """Encrypt ``plain`` under a data key; only the same key and place decrypt it."""
    return f"{_FORM}.{seal(plain.encode(), key, place.associated_data())}"


def decrypt(stored: str, key: bytes, place: Place) -> str:
    """Return what `encrypt` was given. Raises `DecryptionError`."""
    form, _, sealed = stored.partition(".")
    if form != _FORM:
        raise DecryptionError("The secret is not in a form that is read.")
    return unseal(sealed, key, place.associated_data()).decode()


def seal(plain: bytes, key: bytes, associated_data: bytes) -> str:
    """Encrypt under a fresh nonce; return nonce, ciphertext and tag as one base64url text."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, plain, associated_data)).decode()


def unseal(sealed: str, key: bytes, associated_data: bytes) -> bytes:
    """Return what `seal` was given. Raises `DecryptionError`, which says nothing of either."""
    try:
        raw = base64.urlsafe_b64decode(sealed)
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], associated_data)
    except (binascii.Error, ValueError, InvalidTag):
        raise DecryptionError("The text cannot be decrypted: wrong place, wrong key, or altered.") from None


@contextmanager
def counted(purpose: Purpose) -> Iterator[None]:
    """Count one decryption of a secret, with what became of it."""
    outcome = "ok"
    try:
        yield
    except DecryptionError:
        outcome = "failed"
        raise
    except KeysUnavailable:
        outcome = "unavailable"
        raise
    finally:
        DECRYPTIONS.labels(purpose.value, outcome).inc()
