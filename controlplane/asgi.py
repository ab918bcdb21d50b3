"""The ASGI application: inference in the event loop, everything else through Django, and the lifespan of both."""

import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_asgi_application()

from apps.gateway.asgi import InferenceDoor  # noqa: E402 (its modules need Django to be set up)
from apps.gateway.runtime import Runtime  # noqa: E402

_door = InferenceDoor(_django)  # type: ignore[arg-type]


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Serve a request, or live through the server's lifespan."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    else:
        await _door(scope, receive, send)


async def _lifespan(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    await receive()
    runtime = Runtime()
    await runtime.start()
    runtime.start_sweeping()
    _door.runtime = runtime
    _spare_the_collector()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await runtime.stop()
    await send({"type": "lifespan.shutdown.complete"})


def _spare_the_collector() -> None:
    """Leave what start-up made out of every later collection, and collect less often.

    A request makes thousands of objects and hardly a cycle, so the collector's default pace costs a tenth of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
