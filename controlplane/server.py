"""The plain server: uvicorn on a socket that was bound before anything else was done."""

import json
import os
import signal
import socket
import tempfile

import uvicorn
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

DRAIN_SECONDS = 6
KEEP_ALIVE_SECONDS = 65
_MALFORMED = json.dumps(
    {
        "error": {
            "message": "This is not a well-formed HTTP/1.1 request.",
            "type": "invalid_request_error",
            "param": None,
            "code": "INVALID_REQUEST",
            "details": {},
        }
    }
).encode()


class ApiProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals have the API's shape too, and whose headers must come within a deadline.

    A request's line and headers may take as long as a body may. One timer watches a connection's requests, so that
    none of them pays for one; it looks twice in that time.
    """

    def connection_made(self, transport: object) -> None:
        """Wait for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
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
        """The headers are there: the deadline is met."""
        self._headers_wanted_since = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: " + str(len(_MALFORMED)).encode() + b"\r\n\r\n"
        )
        self.transport.write(head + _MALFORMED)
        self.transport.close()

    def _watch(self) -> None:
        since = self._headers_wanted_since
        if since is not None and self.loop.time() - since >= settings.BODY_DEADLINE_SECONDS:
            self.transport.close()
        self._watching = self.loop.call_later(settings.BODY_DEADLINE_SECONDS / 2, self._watch)


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
        "controlplane.asgi:application",
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
