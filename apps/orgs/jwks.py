"""The identity provider's public keys: fetched when they are needed, within bounds, and kept.

A token names its key. Known keys cost nothing; an unknown name makes us ask the provider again, but not more often than
`INTERVAL_SECONDS`, however many such tokens come. While the provider does not answer, known keys hold for
`HOLD_SECONDS`; what cannot be decided is `SigningKeysUnavailable`, never a yes.
"""

import base64
import binascii
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from apps.orgs.outbound import ask
from apps.orgs.strict_json import parse_strict

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3600.0
HOLD_SECONDS = 6 * 3600.0
INTERVAL_SECONDS = 30.0
RETRY_SECONDS = 5.0
"""How soon a failed fetch may be tried again."""
MAX_BYTES = 64 * 1024
MAX_KEYS = 32
READ_SECONDS = 2.0
FETCH_SECONDS = 4.0
MIN_BITS, MAX_BITS = 2048, 4096
MAX_ID_CHARACTERS = 256


class SigningKeysUnavailable(Exception):
    """The provider's keys cannot be had right now, so the token can be neither believed nor refused."""


class KeySet:
    """The keys of one provider in this process. Threads may share it."""

    def __init__(self, fetch: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at = 0.0
        self._next_fetch = 0.0
        self._failed = False

    def find(self, key_id: str) -> RSAPublicKey | None:
        """Return the key of a name, ``None`` if the provider has none such. Raises `SigningKeysUnavailable`."""
        if key_id in self._keys and self._age() < FRESH_SECONDS:
            return self._keys[key_id]
        current = self._refresh()
        key = self._keys.get(key_id)
        if key is not None and self._age() < HOLD_SECONDS:
            return key
        if not current:
            raise SigningKeysUnavailable
        return None

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _refresh(self) -> bool:
        """Ask the provider if it is time to; return whether what is known is what it last said.

        One thread asks. Others wait for it only where there is no key at all yet, so that a slow provider under a
        flood of unknown names holds up one thread and not all of them.
        """
        if not self._lock.acquire(blocking=not self._keys):
            return False
        try:
            if self._clock() >= self._next_fetch:
                self._load()
            return not self._failed
        finally:
            self._lock.release()

    def _load(self) -> None:
        try:
            keys = parse_keys(self._fetch())
        except Exception as error:  # noqa: BLE001 (whatever goes wrong outside, there are no new keys)
            logger.warning("The identity provider's keys cannot be read: %s", type(error).__name__)
            self._failed = True
            self._next_fetch = self._clock() + RETRY_SECONDS
            return
        self._keys, self._failed = keys, False
        self._fetched_at = self._clock()
        self._next_fetch = self._fetched_at + INTERVAL_SECONDS


def parse_keys(document: bytes) -> dict[str, RSAPublicKey]:
    """Return the RSA keys for signatures in a JWK set (RFC 7517), by their names.

    Raises `ValueError` for what is no such set, has a name twice, or none of our keys. Keys of other kinds, and those
    too short to be safe or long enough to be slow, are passed over.
    """
    parsed = parse_strict(document, max_depth=8)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("This is no set of keys.")
    keys: dict[str, RSAPublicKey] = {}
    for entry in listed:
        key = _key_of(entry)
        if key is None:
            continue
        if entry["kid"] in keys:
            raise ValueError("Two keys have the same name.")
        keys[entry["kid"]] = key
    if not keys:
        raise ValueError("There is no key for signatures.")
    return keys


def fetch(url: str) -> bytes:
    """Return what stands at an address: at most `MAX_BYTES`, within `FETCH_SECONDS`; no redirect, no proxy.

    Raises `ValueError` or an error of the connection.
    """
    status, body = ask("GET", url, silence_seconds=READ_SECONDS, seconds=FETCH_SECONDS, most_bytes=MAX_BYTES)
    if status != 200:
        raise ValueError(f"The answer was {status}.")
    return body


def _key_of(entry: Any) -> RSAPublicKey | None:
    if not isinstance(entry, dict) or entry.get("kty") != "RSA":
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256":
        return None
    name = entry.get("kid")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARACTERS:
        return None
    modulus, exponent = _number(entry.get("n")), _number(entry.get("e"))
    if not MIN_BITS <= modulus.bit_length() <= MAX_BITS or not 65537 <= exponent < 2**32:
        return None
    return RSAPublicNumbers(exponent, modulus).public_key()


def _number(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    try:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
    except (binascii.Error, ValueError):
        return 0
