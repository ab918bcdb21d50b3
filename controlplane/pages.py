"""Django's pages behind the ASGI server, on a fixed number of threads with one database connection each.

Django's own ASGI handler starts a thread for every request. Each opens a connection of its own, and nothing bounds how
many there are: a busy admin would take every connection that the database has, and calls would be refused for want of
one. Here a request's body is read in the event loop first, so that a slow client holds no thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import orjson
from a2wsgi import WSGIMiddleware

from apps.audit.uuid7 import uuid7
from apps.gateway.asgi import HttpRequest, Message, Receive, Scope, Send, send_whole
from apps.gateway.errors import InvalidRequest
from apps.gateway.pipeline import Answer

SEND_SECONDS = 30.0
"""How long a client may take to make room for one piece of an answer: where that is a stream, a thread waits."""
_FRAMING = (b"content-length", b"transfer-encoding")
_CLIENT = "controlplane.client"


class Pages:
    """An ASGI application that serves a WSGI one: whole requests in, answers whole or in pieces.

    An answer in pieces ends when its client has left, so that nothing is made for nobody.
    """

    def __init__(self, wsgi: Callable[..., Any], threads: int) -> None:
        self._wsgi = WSGIMiddleware(_while_there(wsgi), workers=threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = HttpRequest(scope, receive)
        try:
            body = await request.body()
        except InvalidRequest as error:
            if not request.left:
                await _refuse(error, send)
            return
        client = Client(send)
        leaving = asyncio.ensure_future(_leave(request, client))
        try:
            await self._wsgi({**_whole(scope, body), _CLIENT: client}, _once(body), client.send)  # type: ignore[arg-type]
        finally:
            leaving.cancel()
            client.leave()

    def close(self) -> None:
        """Take no more requests. A thread that is under way is not waited for."""
        self._wsgi.executor.shutdown(wait=False, cancel_futures=True)


class Client:
    """Whom an answer is sent to, and whether they are still there. Made in the event loop, asked from any thread."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._at_the_end: list[Callable[[], None]] = []
        self.gone = False
        """Whether they have left, or take nothing in."""

    async def send(self, message: Message) -> None:
        """Send a piece of the answer. To who is gone nothing is sent, and that is no error.

        A thread hands its pieces over through a queue: if sending failed, it would wait there for ever.
        """
        if self.gone:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except (TimeoutError, OSError):
            self.leave()

    def leave(self) -> None:
        """Note that they are gone, and do what was asked for that case. May be called any number of times."""
        self.gone = True
        while self._at_the_end:
            self._at_the_end.pop()()

    def when_gone(self, do: Callable[[], None]) -> None:
        """Have something done, in the event loop, when they leave or have got their answer. It must bear to be late."""
        self._loop.call_soon_threadsafe(self._note, do)

    def _note(self, do: Callable[[], None]) -> None:
        self._at_the_end.append(do)
        if self.gone:
            self.leave()


def client_of(environment: dict[str, Any]) -> Client | None:
    """Return whom a WSGI request's answer goes to, where the server can tell when they leave."""
    scope = environment.get("asgi.scope")
    client = scope.get(_CLIENT) if isinstance(scope, dict) else None
    return client if isinstance(client, Client) else None


async def _leave(request: HttpRequest, client: Client) -> None:
    await request.wait_until_gone()
    client.leave()


def _while_there(wsgi: Callable[..., Any]) -> Callable[..., Any]:
    def application(environment: dict[str, Any], start_response: Any) -> Any:
        return _Pieces(wsgi(environment, start_response), environment["asgi.scope"][_CLIENT])

    return application


class _Pieces:
    """An answer's pieces for as long as its client is there."""

    def __init__(self, pieces: Iterable[bytes], client: Client) -> None:
        self._pieces = pieces
        self._client = client

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if self._client.gone:
                return
            yield piece

    def close(self) -> None:
        """Close the answer, as a WSGI server does."""
        getattr(self._pieces, "close", lambda: None)()


def _whole(scope: Scope, body: bytes) -> Scope:
    """Return a scope whose headers say how long the body is, and hold nothing that could pose as another header.

    In a WSGI environment ``X_Real_Ip`` is ``X-Real-Ip``: what a proxy in front removed would come in by that name.
    """
    headers = [(name, value) for name, value in scope["headers"] if name not in _FRAMING and b"_" not in name]
    headers.append((b"content-length", str(len(body)).encode()))
    query = quote(scope["query_string"], safe=_IN_A_QUERY).encode()
    return {**scope, "headers": headers, "query_string": query}


def _once(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _refuse(error: InvalidRequest, send: Send) -> None:
    headers = [("content-type", "application/json"), ("x-request-id", str(uuid7()))]
    await send_whole(Answer(error.status, headers, orjson.dumps(error.body())), send)


_IN_A_QUERY = "".join(map(chr, range(0x21, 0x7F)))
"""Every character that a query may hold as it is; quoting the others keeps its reader from failing on them."""
