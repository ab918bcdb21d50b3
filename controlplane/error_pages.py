"""What Django answers where no view does: the API's shape below /v1/ and to programs, Django's own pages to people."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt

API, PAGES = "/v1/", "/admin/"
READ = ("GET", "HEAD")


def read_only(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Let a view without a form be read, and refuse what else is sent to it in the API's shape."""

    @csrf_exempt
    @wraps(view)
    def reading(request: HttpRequest) -> HttpResponse:
        return view(request) if request.method in READ else method_not_allowed(request.method or "")

    return reading


def method_not_allowed(method: str) -> HttpResponse:
    """Answer 405, for what can only be read."""
    message = f'Method "{method}" not allowed.'
    response = _error(405, "METHOD_NOT_ALLOWED", "invalid_request_error", message)
    response["Allow"] = ", ".join(READ)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400, for what Django itself finds suspicious."""
    if _is_program(request):
        return _error(400, "INVALID_REQUEST", "invalid_request_error", "The request is malformed.")
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404, for an address that nothing serves."""
    if _is_program(request):
        return _error(
            404, "NOT_FOUND", "invalid_request_error", "Nothing is served at this address. The API is below /v1/."
        )
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, for a failure of ours; what failed stands in the log."""
    if _is_program(request):
        return _error(500, "INTERNAL_ERROR", "server_error", "The gateway failed.")
    return defaults.server_error(request)


def _is_program(request: HttpRequest) -> bool:
    """Whether a page would be of no use: an SDK whose base URL lacks the ``/v1`` wants to read an error too.

    A browser that goes to a page names HTML; programs take anything, or say nothing.
    """
    if request.path.startswith(PAGES):
        return not request.accepts("text/html")
    return f"{request.path}/".startswith(API) or "text/html" not in request.headers.get("accept", "")


def _error(status: int, code: str, kind: str, message: str) -> HttpResponse:
    body: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code, "details": {}}
    return JsonResponse({"error": body}, status=status)
