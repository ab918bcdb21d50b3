"""What a load balancer and a monitor ask: is the process alive, can it serve, and what does it count."""

import hmac
import ipaddress
import os
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector


def alive(_: HttpRequest) -> JsonResponse:
    """Answer 200 as long as the process answers at all."""
    return JsonResponse({"status": "ok"})


def ready(_: HttpRequest) -> JsonResponse:
    """Answer 200 if the database takes statements, 503 if not: without it no request can be recorded, or served."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        connection.close()
        return JsonResponse({"status": "unavailable", "database": "down"}, status=503, headers={"Retry-After": "1"})
    return JsonResponse({"status": "ok", "database": "up"})


class HealthMiddleware:
    """Answers health checks before anything else looks at them: a load balancer asks by address, not by our name."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a health check, or pass the request on."""
        view = _CHECKS.get(request.path)
        return view(request) if view else self._get_response(request)


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus, from this machine or with the token, with the counts of all processes of this server."""
    if not (_from_this_machine(request) or _has_token(request)):
        error: dict[str, Any] = {
            "message": "Metrics are served to this machine, or with METRICS_TOKEN as a bearer token.",
            "type": "permission_error",
            "param": None,
            "code": "FORBIDDEN",
            "details": {},
        }
        return JsonResponse({"error": error}, status=403)
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _from_this_machine(request: HttpRequest) -> bool:
    """Whether the peer is on loopback and speaks for itself: a proxy here speaks for the world."""
    address = request.META.get("REMOTE_ADDR") or ""
    forwarded = {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"} & request.META.keys()
    try:
        return ipaddress.ip_address(address).is_loopback and not forwarded
    except ValueError:
        return False


def _has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    expected = settings.METRICS_TOKEN
    return bool(expected) and scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), expected.encode())


_CHECKS: dict[str, Callable[[HttpRequest], HttpResponseBase]] = {"/health": alive, "/health/ready": ready}
