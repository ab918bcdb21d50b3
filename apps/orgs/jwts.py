"""JSON Web Tokens of the identity provider (RFC 7519, as Cognito issues them): what one must be to be believed.

The work on a token that is not believed is bounded: its size and shape come first, then its key's name, then one RSA
verification. A header may say nothing but ``alg``, ``kid`` and ``typ``, so that no token brings a key along or says
where there is one. What was believed once is remembered under a digest of the whole token until it expires.
"""

import base64
import binascii
import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import jwt

from apps.orgs.cognito import IdentityProvider, identity_provider
from apps.orgs.jwks import MAX_ID_CHARACTERS, KeySet, SigningKeysUnavailable, fetch
from apps.orgs.strict_json import StrictJsonError, parse_strict

MAX_CHARACTERS = 8192
MAX_HEADER_CHARACTERS = 1024
MAX_CLAIM_CHARACTERS = 255
MAX_DEPTH = 8
MAX_REMEMBERED = 10_000
MAX_MOMENT = 2**40
LEEWAY_SECONDS = 10
"""How far the provider's clock and ours may be apart."""
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_HEADERS = frozenset({"alg", "kid", "typ"})
_ALGORITHM = "RS256"
_VERIFIED = (True, "true")


class RefusedToken(Exception):
    """The token is not believed. ``reason`` names the rule, never what stood in the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that is believed says."""

    issuer: str
    subject: str
    use: str
    """``id`` or ``access``."""
    issued_at: int
    ends_at: datetime
    """The moment from which it is not believed any more: its expiry and the leeway."""
    email: str
    email_verified: bool
    name: str
    organization: str
    application: str
    role: str
    nonce: str


def is_shaped_like_one(text: str) -> bool:
    """Whether a credential can be a token: an API key has no dots."""
    return text.count(".") == 2 and len(text) <= MAX_CHARACTERS and text.isascii()


def name_of(text: str) -> str:
    """Return the digest of a whole token, under which it is remembered; ``""`` for what is none."""
    return f"jwt:{hashlib.sha256(text.encode()).hexdigest()}" if is_shaped_like_one(text) else ""


def verify(text: str) -> Claims:
    """Return what a token says. Raises `RefusedToken`, and `SigningKeysUnavailable` if it cannot be decided now."""
    provider = identity_provider()
    if provider is None:
        raise RefusedToken("no identity provider is set up")
    return verifier_of(provider).verify(text)


class Verifier:
    """Believes or refuses the tokens of one provider, and remembers those it believed. Threads may share it."""

    def __init__(self, provider: IdentityProvider, keys: KeySet, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._believed: OrderedDict[str, Claims] = OrderedDict()

    def verify(self, text: str) -> Claims:
        """Return what a token says. Raises `RefusedToken` and `SigningKeysUnavailable`."""
        name = name_of(text)
        if not name:
            raise RefusedToken("malformed")
        claims = self._believed.get(name)
        if claims is None:
            claims = self._examine(text)
            self._remember(name, claims)
        elif claims.ends_at.timestamp() <= self._clock():
            self._believed.pop(name, None)
            raise RefusedToken("expired")
        return claims

    def remembered(self) -> int:
        """Return how many tokens are remembered."""
        return len(self._believed)

    def _remember(self, name: str, claims: Claims) -> None:
        with self._lock:
            self._believed[name] = claims
            while len(self._believed) > MAX_REMEMBERED:
                self._believed.popitem(last=False)

    def _examine(self, text: str) -> Claims:
        if not _COMPACT.fullmatch(text):
            raise RefusedToken("malformed")
        header, payload, _ = text.split(".")
        if len(header) > MAX_HEADER_CHARACTERS:
            raise RefusedToken("oversized header")
        key = self._keys.find(_key_id(_object(header)))
        if key is None:
            raise RefusedToken("unknown key")
        said = _object(payload)
        try:
            jwt.PyJWS().decode(text, key, algorithms=[_ALGORITHM])
        except jwt.PyJWTError as error:
            raise RefusedToken("wrong signature") from error
        return self._claims(said)

    def _claims(self, said: dict[str, Any]) -> Claims:
        use = _text(said, "token_use")
        if use not in ("id", "access"):
            raise RefusedToken("wrong token_use")
        if _text(said, "iss") != self._provider.issuer:
            raise RefusedToken("wrong issuer")
        audience = said.get("aud") if use == "id" else said.get("client_id")
        if audience not in (self._provider.client_id, [self._provider.client_id]):
            raise RefusedToken("wrong audience")
        subject = _text(said, "sub")
        if not subject:
            raise RefusedToken("no subject")
        issued_at, expires_at = self._moments(said)
        return Claims(
            issuer=self._provider.issuer,
            subject=subject,
            use=use,
            issued_at=issued_at,
            ends_at=datetime.fromtimestamp(expires_at + LEEWAY_SECONDS, UTC),
            email=_text(said, "email"),
            email_verified=said.get("email_verified") in _VERIFIED,
            name=_text(said, "name"),
            organization=_text(said, "custom:orgId"),
            application=_text(said, "custom:appId"),
            role=_text(said, "custom:userRole"),
            nonce=_text(said, "nonce"),
        )

    def _moments(self, said: dict[str, Any]) -> tuple[int, int]:
        now = self._clock()
        issued_at, expires_at = _moment(said, "iat"), _moment(said, "exp")
        if expires_at + LEEWAY_SECONDS <= now:
            raise RefusedToken("expired")
        if issued_at > now + LEEWAY_SECONDS:
            raise RefusedToken("not valid yet")
        if "nbf" in said and _moment(said, "nbf") > now + LEEWAY_SECONDS:
            raise RefusedToken("not valid yet")
        return issued_at, expires_at


@lru_cache(maxsize=4)
def verifier_of(provider: IdentityProvider) -> Verifier:
    """Return this process's verifier of a provider's tokens."""
    return Verifier(provider, KeySet(lambda: fetch(provider.keys_url)))


def _object(part: str) -> dict[str, Any]:
    try:
        value = parse_strict(
            base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True), max_depth=8
        )
    except (binascii.Error, ValueError, StrictJsonError) as error:
        raise RefusedToken("malformed") from error
    if not isinstance(value, dict):
        raise RefusedToken("malformed")
    return value


def _key_id(header: dict[str, Any]) -> str:
    if header.get("alg") != _ALGORITHM:
        raise RefusedToken("wrong algorithm")
    if not header.keys() <= _HEADERS or header.get("typ", "JWT") not in ("JWT", "jwt"):
        raise RefusedToken("unknown header")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_ID_CHARACTERS:
        raise RefusedToken("no key")
    return key_id


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_CLAIM_CHARACTERS:
        raise RefusedToken(f"malformed {name}")
    return value


def _moment(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 < value < MAX_MOMENT:
        raise RefusedToken(f"malformed {name}")
    return value


__all__ = ["Claims", "RefusedToken", "SigningKeysUnavailable", "Verifier", "is_shaped_like_one", "name_of", "verify"]
