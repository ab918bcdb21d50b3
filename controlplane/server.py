"""The plain server: uvicorn on a socket that was bound before anything else was done."""

import importlib
import os
import signal
import socket
import tempfile
from typing import TYPE_CHECKING

import orjson
import uvicorn
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from apps.audit.uuid7 import uuid7

if TYPE_CHECKING:  # a worker reads this module before Django is set up
    from apps.gateway.errors import Overloaded

DRAIN_SECONDS = 6
KEEP_ALIVE_SECONDS = 65
_MODULE = "controlplane.asgi"  # imported where requests are served, not where processes are supervised
_MALFORMED = orjson.dumps(
    {
        "error": {
            "message": "This is not a well-formed HTTP/1.1 request.",
            "type": "invalid_request_error",
            "param": None,
            "code": "INVALID_REQUEST",
            "details": {},
        }
    }
)


class ApiProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals have the API's shape too, and whose headers must come within a deadline.

    A request's line and headers may take as long as a body may. One timer watches a connection's requests, so that
    none of them pays for one; it looks twice in that time.

    A request that is shed is answered here, when its headers are there: a task and the application's frames for it
    would cost as much again as reading them, and under three times the load most requests are shed.
    """

    def connection_made(self, transport: object) -> None:
        """Wait for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._door = importlib.import_module(_MODULE).door
        self._shedding = False
        self._headers_wanted_since: float | None = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._watching.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        self._headers_wanted_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers are there: the deadline is met. Whom there is no room for is told so."""
        self._headers_wanted_since = None
        refusal = self._refusal()
        if refusal is None:
            super().on_headers_complete()
        else:
            self._shedding = True
            self._headers_wanted_since = self.loop.time()  # the body, which nobody reads, has a deadline all the same
            self.transport.write(_shed_response(refusal))

    def on_body(self, body: bytes) -> None:
        """Pass a body on, but for one that nobody reads."""
        if not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there to its end. After one that was shed, wait for the next."""
        if not self._shedding:
            super().on_message_complete()
            return
        self._shedding = False
        self._headers_wanted_since = None
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(KEEP_ALIVE_SECONDS, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: " + str(len(_MALFORMED)).encode() + b"\r\n\r\n"
        )
        self.transport.write(head + _MALFORMED)
        self.transport.close()

    def _refusal(self) -> "Overloaded | None":
        """Return why a request is shed, unless it has company on its connection or asks for what is not for here."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.expect_100_continue or self.flow.write_paused or not self.parser.should_keep_alive():
            return None
        refusal: Overloaded | None = self._door.refuse_at_once(self.parser.get_method(), self.url, self.headers)
        return refusal

    def _watch(self) -> None:
        since = self._headers_wanted_since
        if since is not None and self.loop.time() - since >= settings.BODY_DEADLINE_SECONDS:
            self.transport.close()
        self._watching = self.loop.call_later(settings.BODY_DEADLINE_SECONDS / 2, self._watch)


def _shed_response(refusal: "Overloaded") -> bytes:
    body = orjson.dumps(refusal.body())
    return (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nx-request-id: %b\r\n"
        b"retry-after: 1\r\ncontent-length: %d\r\n\r\n%b" % (str(uuid7()).encode(), len(body), body)
    )


def bind(host: str, port: int) -> socket.socket:
    """Bind the server's socket. Raises `OSError` if the port is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(True)
    return listener


def run(listener: socket.socket, workers: int) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    config = uvicorn.Config(
        f"{_MODULE}:application",
        http=ApiProtocol,
        loop="uvloop",
        lifespan="on",
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        proxy_headers=False,
    )
    # Uvicorn raises the signal again once it has drained; an orderly end is no death by signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with tempfile.TemporaryDirectory(prefix="lcp-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Multiprocess(config, [listener]).run()
