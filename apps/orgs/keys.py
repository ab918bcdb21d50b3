"""API keys: ``lcp_<prefix>_<secret>_<checksum>``.

The prefix (8 characters) finds the row; the secret has 256 bits; the checksum (CRC-32 in base 62) lets a mistyped or
random key be refused without a look at the database and lets secret scanners be sure. Stored is an HMAC-SHA-256 of
the whole key under a pepper from the environment, with the pepper's id, so that peppers can be rotated.
"""

import functools
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from apps.orgs.models import ApiKey

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX_CHARACTERS, _SECRET_CHARACTERS, _CHECKSUM_CHARACTERS = 8, 43, 6
_LENGTH = len("lcp___") + _PREFIX_CHARACTERS + _SECRET_CHARACTERS + _CHECKSUM_CHARACTERS


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key's row and, this once, its text."""

    row: ApiKey
    text: str = field(repr=False)


def issue(**owner: Any) -> IssuedKey:
    """Make and store a key. ``owner``: the row's fields (organization, application or user, name, expires_at).

    Raises `django.core.exceptions.ValidationError` if the fields do not fit together.
    """
    text = new_text()
    pepper_id = next(iter(settings.KEY_PEPPERS))
    row = ApiKey(prefix=prefix_of(text), pepper_id=pepper_id, digest=digest(text, pepper_id), **owner)
    row.full_clean()
    row.save()
    return IssuedKey(row, text)


def find(text: str) -> ApiKey | None:
    """Look a key up in the database by its text, whatever its state; its owners come along. ``None``: no such key."""
    prefix = prefix_of(text)
    rows = ApiKey.objects.select_related("organization", "application", "user")
    row = rows.filter(prefix=prefix).first() if prefix else None
    return row if row is not None and matches(text, row.pepper_id, row.digest) else None


def matches(text: str, pepper_id: str, stored_digest: str) -> bool:
    """Whether a key's text is the one that was digested, compared in constant time."""
    return pepper_id in settings.KEY_PEPPERS and hmac.compare_digest(digest(text, pepper_id), stored_digest)


def new_text() -> str:
    """Draw a new key's text."""
    prefix, secret = _random(_PREFIX_CHARACTERS), _random(_SECRET_CHARACTERS)
    body = f"lcp_{prefix}_{secret}"
    return f"{body}_{_checksum(body)}"


def prefix_of(text: str) -> str:
    """Return the prefix of a key, or ``""`` if the text cannot be a key."""
    if len(text) != _LENGTH or not text.startswith("lcp_") or not text.isascii():
        return ""
    body, checksum = text[: -_CHECKSUM_CHARACTERS - 1], text[-_CHECKSUM_CHARACTERS:]
    return text[4 : 4 + _PREFIX_CHARACTERS] if _checksum(body) == checksum else ""


def digest(text: str, pepper_id: str) -> str:
    """Return the keyed digest of a key's text, in hexadecimal. Raises `KeyError` for an unknown pepper."""
    return keyed_digest(settings.KEY_PEPPERS[pepper_id], text)


def keyed_digest(key: bytes, text: str) -> str:
    """Return the HMAC-SHA-256 of a text in UTF-8, in hexadecimal."""
    mac = _keyed(key).copy()
    mac.update(text.encode())
    return mac.hexdigest()


@functools.lru_cache(maxsize=64)
def _keyed(key: bytes) -> hmac.HMAC:
    """Return a MAC that has read its key: copying it is a tenth of what `hmac.digest` takes beside other threads."""
    return hmac.new(key, digestmod="sha256")


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
