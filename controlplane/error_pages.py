"""What Django answers where no view does: the API's shape below /v1/, Django's own pages for people elsewhere."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults

from apps.audit.uuid7 import uuid7

API = "/v1/"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400, for what Django itself finds suspicious."""
    if request.path.startswith(API):
        return _error(400, "INVALID_REQUEST", "invalid_request_error", "The request is malformed.")
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404, for an address that nothing serves."""
    if request.path.startswith(API):
        return _error(404, "NOT_FOUND", "invalid_request_error", "Nothing is served at this address.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, for a failure of ours; what failed stands in the log."""
    if request.path.startswith(API):
        return _error(500, "INTERNAL_ERROR", "server_error", "The gateway failed.")
    return defaults.server_error(request)


def _error(status: int, code: str, kind: str, message: str) -> HttpResponse:
    body: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code, "details": {}}
    return JsonResponse({"error": body}, status=status, headers={"x-request-id": str(uuid7())})
