"""What a load balancer and a monitor ask: is the process alive, can it serve, and what does it count."""

import asyncio
import hmac
import ipaddress
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from apps.audit.uuid7 import uuid7
from apps.gateway.asgi import App, Receive, Scope, Send, send_whole
from apps.gateway.pipeline import Answer
from controlplane import request_ids
from controlplane.error_pages import READ, method_not_allowed

ALIVE, READY = "/health", "/health/ready"


READY_SECONDS = 2.0
"""How long a database may take to answer before it counts as away."""

Report = tuple[int, dict[str, str]]
"""The status of an answer, and its JSON."""


def alive() -> Report:
    """Report 200: a process that answers at all is alive."""
    return 200, {"status": "ok"}


def ready(database_answers: bool) -> Report:
    """Report 200 if the database takes statements, 503 if not: without it no request can be recorded, or served."""
    if database_answers:
        return 200, {"status": "ok", "database": "up"}
    return 503, {"status": "unavailable", "database": "down"}


def ask_database() -> bool:
    """Ask the database for nothing, on this thread's connection."""
    close_old_connections()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        connection.close()
        return False
    return True


class HealthDoor:
    """Answers health checks in the event loop, although every thread of the pages behind may wait for the database."""

    def __init__(self, behind: App) -> None:
        self._behind = behind
        self._thread = ThreadPoolExecutor(1, "ready")
        self._asked: asyncio.Future[bool] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a health check, or pass the request on."""
        if scope["path"] in (ALIVE, READY) and scope["method"] not in READ:
            await _send(method_not_allowed(scope["method"]), send)
        elif scope["path"] == ALIVE:
            await _send(_response(alive()), send)
        elif scope["path"] == READY:
            await _send(_response(ready(await self._database_answers())), send)
        else:
            await self._behind(scope, receive, send)

    def close(self) -> None:
        """End the thread that asks, unless it waits for an answer."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _database_answers(self) -> bool:
        """Ask, or wait with those who have asked: a database that does not answer is asked once."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().run_in_executor(self._thread, ask_database)
        done, _ = await asyncio.wait((self._asked,), timeout=READY_SECONDS)
        return bool(done) and self._asked.result()


class HealthMiddleware:
    """Answers health checks before anything else looks at them: a load balancer asks by address, not by our name."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a health check, or pass the request on."""
        if request.path in (ALIVE, READY) and request.method not in READ:
            return method_not_allowed(request.method or "")
        if request.path == ALIVE:
            return _response(alive())
        if request.path == READY:
            return _response(ready(ask_database()))
        return self._get_response(request)


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


async def _send(response: HttpResponse, send: Send) -> None:
    headers = [*response.items(), (request_ids.HEADER, str(uuid7()))]
    await send_whole(Answer(response.status_code, headers, response.content), send)


def _response(report: Report) -> JsonResponse:
    status, body = report
    return JsonResponse(body, status=status, headers={"Retry-After": "1"} if status == 503 else {})
