"""Who calls the API: the user whose key, or token of the identity provider, comes in the Authorization header."""

from django.db.models import Prefetch, prefetch_related_objects
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from apps.audit import fence
from apps.orgs import identities, jwts, keys
from apps.orgs.fencing import scope_of_key
from apps.orgs.identities import NotAdmitted
from apps.orgs.jwks import SigningKeysUnavailable
from apps.orgs.jwts import RefusedToken
from apps.orgs.models import ApiKey, Membership, User
from apps.orgs.rest.errors import Unavailable


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer ...``: a key that belongs to a user, or a token of the identity provider."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        """Return the user and the key; of a token, the key that does its work. ``None`` without the header.

        From then on the request asks for the rows of their organizations.

        Raises `AuthenticationFailed` for what is no valid key, `PermissionDenied` for an application's.
        """
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        with fence.everything():
            user, key = self._caller(header)
        fence.enter(scope_of_key(key, user))
        return user, key

    def _caller(self, header: str) -> tuple[User, ApiKey]:
        scheme, _, text = header.partition(" ")
        key = _find(text.strip()) if scheme.lower() == "bearer" else None
        if key is None or key.state != "active" or (key.user and not key.user.is_active):
            raise AuthenticationFailed("The API key or token is missing, unknown, expired or revoked.")
        if key.user is None:
            raise PermissionDenied("An application's key calls inference only; use a key that belongs to a user.")
        return _within(key, key.user), key

    def authenticate_header(self, request: Request) -> str:
        """Return what a 401 asks for (RFC 6750)."""
        return 'Bearer realm="llm-control-plane"'


def _find(text: str) -> ApiKey | None:
    if not jwts.is_shaped_like_one(text):
        return keys.find(text)
    try:
        return identities.find(text)
    except RefusedToken:
        return None
    except NotAdmitted as error:
        raise PermissionDenied(str(error)) from error
    except SigningKeysUnavailable as error:
        raise Unavailable("The identity provider's keys cannot be had. Try again.") from error


def _within(key: ApiKey, user: User) -> User:
    """Hold a key that was issued for one organization to the role its user has there.

    Whoever issued it may be an admin of that organization alone, and must not gain the user's other roles.
    """
    if key.organization_id:
        there = Membership.objects.filter(organization_id=key.organization_id)
        prefetch_related_objects([user], Prefetch("memberships", queryset=there))
    return user
