"""Whose rows a request may meet in the database: those of the organizations of whoever asks, and nobody's before.

The second fence (`apps.audit.fence`): a query that forgets `apps.orgs.scoping` gets no row of another organization.
"""

from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from apps.audit import fence
from apps.orgs.models import ApiKey, User


def scope_of_user(user: User) -> str:
    """Return the scope of a person: their organizations and they themselves; a superadmin's is everything."""
    if user.is_superuser:
        return fence.EVERYTHING
    return fence.scope_of({*user.roles(), user.pk})


def scope_of_key(key: ApiKey, user: User) -> str:
    """Return the scope of a person who calls with a key; one for an organization reaches no farther."""
    if key.organization_id is None or user.is_superuser:
        return scope_of_user(user)
    return fence.scope_of(user.roles())


class FenceMiddleware:
    """Has each request ask in the scope of who is logged in, and of nobody if nobody is.

    The API, where a key says who it is, enters its scope when it has read the key.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer within the scope."""
        with fence.within(fence.NOTHING):
            fence.enter(_scope_of(request))
            response = self._get_response(request)
            if response.streaming and fence.scope() != fence.NOTHING:
                stream = cast("StreamingHttpResponse", response)
                pieces = cast("Any", stream.streaming_content)
                stream.streaming_content = fence.stream_within(fence.scope(), pieces)
            return response


@fence.everything()
def _scope_of(request: HttpRequest) -> str:
    """Find out who is logged in; who sends no session is not looked up."""
    if settings.SESSION_COOKIE_NAME not in request.COOKIES or not isinstance(request.user, User):
        return fence.NOTHING
    return scope_of_user(request.user)
