"""An id on every answer of Django's, so that whoever asks about one can name it."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from apps.audit.uuid7 import uuid7

HEADER = "x-request-id"


class RequestIdMiddleware:
    """Gives an id to each answer that has none: an inference request's is the id of its record."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        response = self._get_response(request)
        response.headers.setdefault(HEADER, str(uuid7()))
        return response
