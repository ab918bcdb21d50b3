"""The identity provider, as the COGNITO_* settings describe it: a user pool, a client of it, and its login pages."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlencode

from django.conf import settings

CALLBACK_PATH = "oauth2/idpresponse"
_POOL_ID = re.compile(r"([a-z]{2}(?:-[a-z]+)+-\d)_[0-9A-Za-z]{1,60}")
_PREFIX = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Who signs the tokens that are believed here, and where people log in."""

    issuer: str
    keys_url: str
    client_id: str
    client_secret: str = field(repr=False)
    login_base: str
    """Scheme and host of the login pages; empty where only tokens are read."""
    redirect_uri: str

    @property
    def authorize_url(self) -> str:
        """Where a login begins."""
        return f"{self.login_base}/oauth2/authorize"

    @property
    def token_url(self) -> str:
        """Where a code is redeemed."""
        return f"{self.login_base}/oauth2/token"

    def logout_url(self, way_back: str) -> str:
        """Return where the provider's own session ends; the provider must know ``way_back``."""
        return f"{self.login_base}/logout?{urlencode({'client_id': self.client_id, 'logout_uri': way_back})}"


def identity_provider() -> IdentityProvider | None:
    """Return the provider that the settings describe, ``None`` if they describe none or half of one."""
    return _provider(
        settings.COGNITO_USER_POOL_ID,
        settings.COGNITO_CLIENT_ID,
        settings.COGNITO_CLIENT_SECRET,
        settings.COGNITO_DOMAIN,
        settings.COGNITO_REDIRECT_URI,
        settings.AWS_ENDPOINT_URL,
    )


def login_provider() -> IdentityProvider | None:
    """Return the provider if people can log in with it."""
    provider = identity_provider()
    return provider if provider is not None and provider.login_base else None


def problem_of_settings() -> str:
    """Say in one line what is half set or malformed, ``""`` if nothing is. No value is shown."""
    given = {name for name in _NAMES if getattr(settings, name)}
    missing = [name for name in ("COGNITO_USER_POOL_ID", "COGNITO_CLIENT_ID") if name not in given]
    if given and missing:
        return f"{', '.join(sorted(given))} is set, but {', '.join(missing)} is not: nobody can log in with it."
    if given & {"COGNITO_CLIENT_SECRET", "COGNITO_REDIRECT_URI"} and "COGNITO_DOMAIN" not in given:
        return "COGNITO_DOMAIN is not set: without it nobody can log in with the identity provider."
    return _problem_of_form() if given else ""


def _problem_of_form() -> str:
    if not _POOL_ID.fullmatch(settings.COGNITO_USER_POOL_ID):
        return "COGNITO_USER_POOL_ID is no id of a user pool, such as eu-central-1_AbCdEf123."
    if settings.COGNITO_DOMAIN.startswith("http:") and settings.PRODUCTION:
        return "COGNITO_DOMAIN must not start with http: in production."
    uri = settings.COGNITO_REDIRECT_URI
    if uri and not re.fullmatch(rf"https?://[^/?#@]+/{CALLBACK_PATH}", uri):
        return f"COGNITO_REDIRECT_URI must be an address with the path /{CALLBACK_PATH}."
    return ""


_NAMES = (
    "COGNITO_USER_POOL_ID",
    "COGNITO_CLIENT_ID",
    "COGNITO_CLIENT_SECRET",
    "COGNITO_DOMAIN",
    "COGNITO_REDIRECT_URI",
)


@lru_cache(maxsize=16)
def _provider(
    pool_id: str, client_id: str, secret: str, domain: str, redirect_uri: str, endpoint: str
) -> IdentityProvider | None:
    region = region_of(pool_id)
    if not region or not client_id:
        return None
    issuer = f"https://cognito-idp.{region}.amazonaws.com/{pool_id}"
    keys_base = f"{endpoint.rstrip('/')}/{pool_id}" if endpoint else issuer
    return IdentityProvider(
        issuer=issuer,
        keys_url=f"{keys_base}/.well-known/jwks.json",
        client_id=client_id,
        client_secret=secret,
        login_base=login_base(domain, region),
        redirect_uri=redirect_uri,
    )


def region_of(pool_id: str) -> str:
    """Return the region that a pool's id begins with, ``""`` if it is no such id."""
    pool = _POOL_ID.fullmatch(pool_id)
    return pool.group(1) if pool else ""


def login_base(domain: str, region: str) -> str:
    """Return the login pages' scheme and host: of a prefix of Cognito's, of a host, or of an address."""
    domain = domain.rstrip("/")
    if not domain or "://" in domain:
        return domain
    if _PREFIX.fullmatch(domain):
        return f"https://{domain}.auth.{region}.amazoncognito.com"
    return f"https://{domain}"
