"""What browsers are told: what pages may load and do, and which other origin may call the API."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from apps.gateway.asgi import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from django.utils.deprecation import MiddlewareMixin

    class _PolicyMiddleware(MiddlewareMixin):
        def get_policy_parts(self, request: Any, response: Any, report_only: bool = False) -> Any: ...
        def process_response(self, request: Any, response: Any) -> Any: ...
else:
    from csp.middleware import CSPMiddleware as _PolicyMiddleware

API = "/v1/"
THEMED = ("/admin/", "/oauth2/")
"""Where pages in the admin's theme are: its own, and those of a login that the provider sent back."""
PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "browsing-topics",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "payment",
        "usb",
    )
)
"""No page of ours uses any of these, so none that got into one may."""


class PagePolicyMiddleware(_PolicyMiddleware):
    """Sends the Content-Security-Policy of the settings and the Permissions-Policy.

    Pages in the admin's theme may use ``eval`` too: its Alpine.js turns attributes into functions. Scripts come from
    this server alone there too, and no page writes what a person typed into such an attribute.
    """

    def get_policy_parts(self, request: Any, response: Any, report_only: bool = False) -> Any:
        """Return the policy, with what the admin's pages need besides."""
        parts = super().get_policy_parts(request, response, report_only)
        if request.path.startswith(THEMED):
            parts.update = {**(parts.update or {}), "script-src": ["'unsafe-eval'"]}
        return parts

    def process_response(self, request: Any, response: Any) -> Any:
        """Add the headers."""
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return super().process_response(request, response)


ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-Match, x-api-key"
EXPOSED_HEADERS = (
    "ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate, x-request-id, x-lcp-cost-usd, x-lcp-provider, "
    "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-ratelimit-limit-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)
PREFLIGHT_SECONDS = 600


def front_end() -> str:
    """Return the origin of ``FRONT_END_URL`` as browsers write it, or nothing."""
    parts = urlsplit(settings.FRONT_END_URL.strip().lower())
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if default is None or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in {None, default} else "")


def allowance(origin: str) -> list[tuple[str, str]]:
    """Return the headers by which a page of ``origin`` may read an answer of the API: none but for the front end.

    With credentials, since a proxy in front may want cookies of its own; the API itself reads none.
    """
    if not origin or origin != front_end():
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
    ]


def preflight(origin: str) -> list[tuple[str, str]]:
    """Return the headers that answer a browser's question whether a page of ``origin`` may send a request."""
    allowed = [one for one in allowance(origin) if one[0] != "Access-Control-Expose-Headers"]
    if not allowed:
        return []
    return [
        *allowed,
        ("Access-Control-Allow-Methods", ALLOWED_METHODS),
        ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
        ("Access-Control-Max-Age", str(PREFLIGHT_SECONDS)),
    ]


class CrossOriginMiddleware:
    """Lets the front end's pages call the API (CORS), where Django answers."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a preflight, or pass the request on."""
        if not settings.FRONT_END_URL or not request.path.startswith(API):
            return self._get_response(request)
        origin = request.headers.get("origin", "")
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            response: HttpResponseBase = HttpResponse(status=204, headers=dict(preflight(origin)))
        else:
            response = self._get_response(request)
            for name, value in allowance(origin):
                response[name] = value
        patch_vary_headers(response, ["Origin"])
        return response


class CrossOriginDoor:
    """The same in front of the plain door for inference, which Django does not see."""

    def __init__(self, behind: App) -> None:
        self._behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; let the front end read the answer. Preflights are Django's to answer, and it says so."""
        if not settings.FRONT_END_URL or not scope["path"].startswith(API):
            await self._behind(scope, receive, send)
            return
        origin = _origin(scope["headers"])
        await self._behind(scope, receive, _with_headers(send, [*allowance(origin), ("vary", "Origin")]))


def _origin(headers: Sequence[tuple[bytes, bytes]]) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == b"origin"), "")


def _with_headers(send: Send, headers: Sequence[tuple[str, str]]) -> Send:
    """Return a ``send`` that adds headers, unless Django has answered and added them."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start" and not _varies_by_origin(message["headers"]):
            message = {**message, "headers": [*message["headers"], *raw]}
        await send(message)

    return send_with_headers


def _varies_by_origin(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"vary" and b"origin" in value.lower() for name, value in headers)
