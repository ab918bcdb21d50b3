"""The ASGI application: inference in the event loop, everything else through Django, and the lifespan of both."""

import asyncio
import gc
import os
import sys
import threading

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_wsgi_application()

from django.conf import settings  # noqa: E402 (these need Django to be set up)

from apps.alerts.teller import Teller  # noqa: E402
from apps.audit import wires  # noqa: E402
from apps.gateway.asgi import InferenceDoor, Receive, Scope, Send  # noqa: E402
from apps.gateway.runtime import BACKGROUND, Runtime  # noqa: E402
from controlplane.browsers import CrossOriginDoor  # noqa: E402
from controlplane.health import HealthDoor  # noqa: E402
from controlplane.pages import Pages  # noqa: E402

_pages = Pages(_django, settings.PAGE_THREADS)
_health = HealthDoor(_pages)
door = InferenceDoor(_health)
_entrance = CrossOriginDoor(door) if settings.FRONT_END_URL else door

LAST_CALL_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""How long the event loop may keep the journal's thread from the interpreter, which it needs for a moment between any
two statements: with Python's 5 ms a busy loop made each group some 20 ms longer."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, or live through the server's lifespan."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _entrance(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1000})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    runtime = Runtime()
    await runtime.start()
    runtime.start_sweeping()
    teller = Teller(settings.ALERT_SECONDS, runtime.journal)
    teller.start()
    door.runtime = runtime
    BACKGROUND.adopt(runtime)
    _spare_the_collector()
    sys.setswitchinterval(SWITCH_SECONDS)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    _health.close()
    _pages.close()
    BACKGROUND.release()
    telling = asyncio.get_running_loop().run_in_executor(None, teller.stop)
    await runtime.stop()
    await telling
    wires.cut_all()
    _end_soon()
    await send({"type": "lifespan.shutdown.complete"})


def _end_soon() -> None:
    """Make sure of the end: the interpreter joins every thread, and one may wait for a database that hangs.

    All records are safe by now, and whoever a page was for has left.
    """
    last_call = threading.Timer(LAST_CALL_SECONDS, os._exit, (0,))
    last_call.daemon = True
    last_call.start()


def _spare_the_collector() -> None:
    """Leave what start-up made out of every later collection, and collect less often.

    A request makes thousands of objects and hardly a cycle, so the collector's default pace costs a tenth of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
