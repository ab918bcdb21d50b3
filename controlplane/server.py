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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess

from apps.audit.uuid7 import uuid7

if TYPE_CHECKING:  # a worker reads this module before Django is set up
    from apps.gateway.errors import Overloaded

DRAIN_SECONDS = 6
KEEP_ALIVE_SECONDS = 65
MAX_HEAD_BYTES = 64 * 1024
"""How long a request's line and headers may be together; proxies in front allow less."""
LINGER_SECONDS = 1.0
_WASTE_BYTES = 1024 * 1024
"""How much more than the largest body a request may send, in the framing of its pieces or after it was refused."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_MODULE = "controlplane.asgi"  # imported where requests are served, not where processes are supervised


class HeadTooLarge(Exception):
    """A request's line and headers are longer than they may be."""


class ApiProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals have the API's shape too, and which no client can hold by sending or reading slowly.

    A request's line and headers may take as long as a body may, and so may the client's silence while it reads an
    answer. One timer watches a connection, so that no request pays for one; it looks twice in that time.

    A request that is shed is answered here, when its headers are there: a task and the application's frames for it
    would cost as much again as reading them, and under three times the load most requests are shed.
    """

    def connection_made(self, transport: object) -> None:
        """Wait for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._door = importlib.import_module(_MODULE).door
        self._shedding = False
        self._headers_wanted_since: float | None = self.loop.time()
        self._head_bytes = self._request_bytes = 0
        self._unread_bytes, self._unread_since = 0, self.loop.time()
        self._running: RequestResponseCycle | None = None
        self._refused = False
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline, and tell the request that is under way; others may have been sent after it."""
        self._watching.cancel()
        self._disconnect(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, if they may still come. The read in which a request begins is not counted."""
        if self._refused:
            return
        self._request_bytes += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._in_head():
            if self._request_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
        elif self._request_bytes > settings.MAX_BODY_BYTES + _WASTE_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        self._headers_wanted_since = self.loop.time()
        self._head_bytes = self._request_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._count_head(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What follows the body is none: it would pass for one that was there when the key was read."""
        if self._in_head():
            self._count_head(name + value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are there: the deadline is met. Whom there is no room for is told so."""
        self._headers_wanted_since = None
        if self.parser.should_upgrade() and any(name in _FRAMING for name, _ in self.headers):
            # The parser takes a body for the other protocol, and would leave the request without one.
            self._refuse(b"400 Bad Request", "This server speaks HTTP/1.1 only: send the body without 'Upgrade'.")
            return
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            self._refuse(b"400 Bad Request", "A request needs one 'Host' header.")
            return
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
        """Refuse what is no HTTP, or has too much of it before the body."""
        if self._refused:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(b"400 Bad Request", "This is not a well-formed HTTP/1.1 request.")

    def _in_head(self) -> bool:
        """Whether a request's headers are still to come; the body of one that was shed has a deadline too."""
        return self._headers_wanted_since is not None and not self._shedding

    def _count_head(self, piece: bytes) -> None:
        self._head_bytes += len(piece)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge

    def _refuse_head(self) -> None:
        message = f"The request's line and headers are longer than {MAX_HEAD_BYTES} bytes."
        self._refuse(b"431 Request Header Fields Too Large", message)

    def _refuse(self, status: bytes, message: str) -> None:
        # By hand: a worker process reads this module before Django is set up, and our errors need it.
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "INVALID_REQUEST"}
        body = orjson.dumps({"error": {**error, "details": {}}})
        head = (
            b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: " + str(uuid7()).encode() + b"\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n"
        )
        self._refused = True
        self._disconnect(self._running)
        self._disconnect(self.cycle)
        self.transport.write(head + body)
        # What still comes is read and dropped for a moment: with unread data the close would destroy the answer.
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _disconnect(self, cycle: RequestResponseCycle | None) -> None:
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client may ask for another protocol, and is answered in this one."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: object) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _refusal(self) -> "Overloaded | None":
        """Return why a request is shed, unless it has company on its connection or asks for what is not for here."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if settings.FRONT_END_URL and any(name == b"origin" for name, _ in self.headers):
            return None  # the application says which page may read its refusal
        if busy or self.expect_100_continue or self.flow.write_paused or not self.parser.should_keep_alive():
            return None
        refusal: Overloaded | None = self._door.refuse_at_once(self.parser.get_method(), self.url, self.headers)
        return refusal

    def _watch(self) -> None:
        now, patience = self.loop.time(), settings.BODY_DEADLINE_SECONDS
        wanted = self._headers_wanted_since
        if wanted is not None and now - wanted >= patience:
            self.transport.close()
        unread = self.transport.get_write_buffer_size() if self.flow.write_paused else 0
        if unread == 0 or unread != self._unread_bytes:
            self._unread_bytes, self._unread_since = unread, now
        elif now - self._unread_since >= patience:
            self.transport.abort()  # closing would wait for the client to read the rest
        self._watching = self.loop.call_later(patience / 2, self._watch)


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
