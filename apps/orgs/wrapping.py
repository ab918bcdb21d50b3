"""Wrapping keys: what data keys are encrypted under. AWS KMS where `KMS_KEY_ID` is set, else the operator's key ring.

A wrapped key says what it was wrapped by: ``kms:<key ARN>`` or ``local:<id in ENCRYPTION_KEYS>``. What is unwrapped is
found by that, so both kinds can be read beside each other while one replaces the other.

The context (whose key it is) is authenticated by either: KMS calls it the encryption context and logs it.
"""

import base64
import binascii
import json
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from prometheus_client import Counter

from apps.orgs.encryption import KEY_BYTES, DecryptionError, KeysUnavailable, seal, unseal

Context = dict[str, str]

CONNECT_SECONDS, READ_SECONDS = 1, 1
"""A request may wait for KMS, though not longer than for the database: see `Configurations.read`."""
SPARED_SECONDS = 5.0
"""How long KMS is not asked again after it did not answer, so that its absence does not hold every reader."""

UNWRAPS = Counter("lcp_key_unwraps_total", "Data keys opened by their wrapping key.", ["wrapping", "outcome"])

_FOR_GOOD = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_OVERLOADED = frozenset({"ThrottlingException", "KMSInternalException", "DependencyTimeoutException"})
_making = threading.Lock()
_away_until: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A key under a wrapping key, as it is stored."""

    by: str
    text: str


def wrap(key: bytes, context: Context) -> Wrapped:
    """Encrypt a key under the current wrapping key. Raises `KeysUnavailable`."""
    return _wrap_by_kms(key, context) if settings.KMS_KEY_ID else _wrap_by_ring(key, context)


def unwrap(wrapped: Wrapped, context: Context) -> bytes:
    """Return the key. Raises `DecryptionError` if context or wrapping key are others, or `KeysUnavailable`."""
    scheme, _, name = wrapped.by.partition(":")
    if scheme not in _UNWRAP:
        raise DecryptionError("Nothing unwraps a key of this kind.")
    outcome = "failed"
    try:
        key = _UNWRAP[scheme](name, wrapped.text, context)
        outcome = "ok"
    except KeysUnavailable:
        outcome = "unavailable"
        raise
    finally:
        UNWRAPS.labels(scheme, outcome).inc()
    return key


def current() -> str:
    """Return what `wrap` wraps by. Raises `KeysUnavailable`."""
    if not settings.KMS_KEY_ID:
        return f"local:{_first_of_ring()[0]}"
    found = _ask_kms(settings.KMS_KEY_ID, "describe_key", KeyId=settings.KMS_KEY_ID)
    return f"kms:{found['KeyMetadata']['Arn']}"


def prepare() -> None:
    """Import what unwrapping needs, before a request waits for it: the AWS SDK takes a second."""
    if settings.KMS_KEY_ID:
        _client(_region(settings.KMS_KEY_ID))


# --- The operator's key ring


def _wrap_by_ring(key: bytes, context: Context) -> Wrapped:
    name, wrapping_key = _first_of_ring()
    return Wrapped(f"local:{name}", seal(key, wrapping_key, _associated_data(context)))


def _unwrap_by_ring(name: str, text: str, context: Context) -> bytes:
    wrapping_key = settings.ENCRYPTION_KEYS.get(name)
    if wrapping_key is None:
        raise DecryptionError("The wrapping key is not in ENCRYPTION_KEYS.")
    return unseal(text, wrapping_key[:KEY_BYTES], _associated_data(context))


def _first_of_ring() -> tuple[str, bytes]:
    for name, key in settings.ENCRYPTION_KEYS.items():
        return name, key[:KEY_BYTES]
    raise KeysUnavailable("Neither KMS_KEY_ID nor ENCRYPTION_KEYS is set.")


def _associated_data(context: Context) -> bytes:
    return json.dumps(["data key", context], sort_keys=True).encode()


# --- AWS KMS


def _wrap_by_kms(key: bytes, context: Context) -> Wrapped:
    name = settings.KMS_KEY_ID
    answer = _ask_kms(name, "encrypt", KeyId=name, Plaintext=key, EncryptionContext=context)
    return Wrapped(f"kms:{answer['KeyId']}", base64.b64encode(answer["CiphertextBlob"]).decode())


def _unwrap_by_kms(name: str, text: str, context: Context) -> bytes:
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise DecryptionError("The wrapped key was altered.") from None
    answer = _ask_kms(name, "decrypt", KeyId=name, CiphertextBlob=blob, EncryptionContext=context)
    return bytes(answer["Plaintext"])


def _ask_kms(name: str, operation: str, **parameters: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # noqa: PLC0415 (slow)

    if time.monotonic() < _away_until.get(name, 0.0):
        raise KeysUnavailable("KMS did not answer a moment ago.")
    try:
        answer: dict[str, Any] = getattr(_client(_region(name)), operation)(**parameters)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in _FOR_GOOD:
            raise DecryptionError("KMS cannot unwrap the key: another context or key, or altered.") from None
        if code in _OVERLOADED:
            _away_until[name] = time.monotonic() + SPARED_SECONDS
        raise KeysUnavailable(f"KMS refuses: {code}.") from None
    except BotoCoreError as error:
        _away_until[name] = time.monotonic() + SPARED_SECONDS
        raise KeysUnavailable(f"KMS does not answer: {type(error).__name__}.") from None
    return answer


def _region(name: str) -> str | None:
    """Return the region in ``arn:aws:kms:<region>:...``: it need not be the server's own."""
    parts = name.split(":")
    return parts[3] if len(parts) > 3 and parts[3] else None


def _client(region: str | None) -> Any:
    with _making:
        return _made_client(region)


@cache
def _made_client(region: str | None) -> Any:
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 (slow to import, and needed with KMS alone)
    from botocore.config import Config  # type: ignore[import-untyped]  # noqa: PLC0415

    limits = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1})
    return boto3.session.Session().client("kms", region_name=region, config=limits)


_UNWRAP = {"local": _unwrap_by_ring, "kms": _unwrap_by_kms}
