"""Django's pages behind the ASGI server, on a fixed number of threads with one database connection each.

Django's own ASGI handler starts a thread for every request. Each opens a connection of its own, and nothing bounds how
many there are: a busy admin would take every connection that the database has, and calls would be refused for want of
one. Here a request's body is read in the event loop first, so that a slow client holds no thread.
"""

import asyncio
from collections.abc import Callable
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


class Pages:
    """An ASGI application that serves a WSGI one: whole requests in, answers whole or in pieces."""

    def __init__(self, wsgi: Callable[..., Any], threads: int) -> None:
        self._wsgi = WSGIMiddleware(wsgi, workers=threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = HttpRequest(scope, receive)
        try:
            body = await request.body()
        except InvalidRequest as error:
            if not request.left:
                await _refuse(error, send)
            return
        await self._wsgi(_whole(scope, body), _once(body), _in_time(send))  # type: ignore[arg-type]

    def close(self) -> None:
        """Take no more requests. A thread that is under way is not waited for."""
        self._wsgi.executor.shutdown(wait=False, cancel_futures=True)


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


def _in_time(send: Send) -> Send:
    async def send_in_time(message: Message) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)

    return send_in_time


async def _refuse(error: InvalidRequest, send: Send) -> None:
    headers = [("content-type", "application/json"), ("x-request-id", str(uuid7()))]
    await send_whole(Answer(error.status, headers, orjson.dumps(error.body())), send)


_IN_A_QUERY = "".join(map(chr, range(0x21, 0x7F)))
"""Every character that a query may hold as it is; quoting the others keeps its reader from failing on them."""
