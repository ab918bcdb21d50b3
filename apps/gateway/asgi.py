"""The plain ASGI door for inference: what Django's own handler spends a thread on, this does in the event loop.

It takes the inference paths and hands every other request to the Django application behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

from django.conf import settings

from apps.audit.models import Status
from apps.gateway.errors import InvalidRequest, Overloaded
from apps.gateway.pipeline import Answer
from apps.gateway.runtime import Runtime
from apps.gateway.streaming import AnswerStream

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CHAT, MODELS = "/v1/chat/completions", "/v1/models"


class HttpRequest:
    """One HTTP request over ASGI, as the pipeline wants it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.authorization = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        self.content_encoding = _header(headers, b"content-encoding").strip().lower()
        self._length = _header(headers, b"content-length")
        self._body: bytes | None = None
        self.left = False
        """Whether the client was seen to leave."""

    async def body(self) -> bytes:
        """Read the body within its deadline and its size."""
        if self._body is None:
            check_length(self._length)
            message = self._at_once()  # most bodies come with their headers, and need no deadline
            if message is None or message.get("more_body"):
                self._body = await self._read(message)
            else:
                self._body = self._piece(message, settings.MAX_BODY_BYTES)
        return self._body

    def gone(self) -> bool:
        """Whether the client has left, to be asked when the body was read: the server says so by a message."""
        if not self.left:
            message = self._at_once()
            self.left = message is not None and message["type"] == "http.disconnect"
        return self.left

    async def wait_until_gone(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True

    def _at_once(self) -> Message | None:
        """Return the server's next message if it is there. One step of receiving it tells, and costs no task."""
        waiting = self._receive().__await__()
        try:
            next(waiting)
        except StopIteration as received:
            message: Message = received.value
            return message
        waiting.close()
        return None

    async def _read(self, message: Message | None) -> bytes:
        """Read a body of which the first message is there, or none."""
        pieces, room = [], settings.MAX_BODY_BYTES
        try:
            async with asyncio.timeout(settings.BODY_DEADLINE_SECONDS):
                while True:
                    message = message or await self._receive()
                    pieces.append(self._piece(message, room))
                    room -= len(pieces[-1])
                    if not message.get("more_body"):
                        return b"".join(pieces)
                    message = None
        except TimeoutError as error:
            raise InvalidRequest("The body did not come in time.", status=408) from error

    def _piece(self, message: Message, room: int) -> bytes:
        """Return a message's part of the body, of ``room`` bytes at most."""
        if message["type"] == "http.disconnect":
            self.left = True
            raise InvalidRequest("The client left before the body's end.")
        piece: bytes = message.get("body", b"")
        if len(piece) > room:
            raise too_large()
        return piece


class InferenceDoor:
    """An ASGI application that serves inference and passes everything else on."""

    def __init__(self, behind: App) -> None:
        self._behind = behind
        self.runtime: Runtime | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = _route(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if route is None or self.runtime is None:
            await self._behind(scope, receive, send)
            return
        request = HttpRequest(scope, receive)
        name, *arguments = route
        answer = await getattr(self.runtime.pipeline, name)(request, *arguments)
        if answer.stream is None:
            await send_whole(answer, send)
        else:
            await _send_stream(answer, answer.stream, request, send)

    def refuse_at_once(self, method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Overloaded | None:
        """Say whether a request would be shed, for a server that can answer it before it makes anything of it."""
        if self.runtime is None or method != b"POST" or path != CHAT.encode():
            return None
        return self.runtime.pipeline.refuse_at_once(
            [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        )


def check_length(value: str) -> None:
    """Refuse, before reading it, a body that says it is too large. Raises `InvalidRequest`."""
    if value.isdigit() and int(value) > settings.MAX_BODY_BYTES:
        raise too_large()


def too_large() -> InvalidRequest:
    """Say how large a body may be."""
    return InvalidRequest(f"The body is larger than {settings.MAX_BODY_BYTES} bytes.", status=413)


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


async def send_whole(answer: Answer, send: Send) -> None:
    """Send an answer that is no stream."""
    length = [(b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": _raw(answer.headers) + length})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_stream(answer: Answer, stream: AnswerStream, request: HttpRequest, send: Send) -> None:
    """Relay a stream until its end or until the client leaves; its settlement is sure either way."""
    sending = asyncio.ensure_future(_relay(answer, stream, send))
    leaving = asyncio.ensure_future(request.wait_until_gone())
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            stream.close(Status.CANCELLED)
    except asyncio.CancelledError:
        stream.close(Status.INTERRUPTED)
        raise
    finally:
        leaving.cancel()
        sending.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        stream.close(Status.INTERRUPTED)


async def _relay(answer: Answer, stream: AnswerStream, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _raw(answer.headers)})
    async for data in stream:
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _raw(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_raw_name(name), value.encode("latin-1", "replace")) for name, value in headers]


@lru_cache(maxsize=64)
def _raw_name(name: str) -> bytes:
    return name.lower().encode()


def _route(method: str, path: str) -> tuple[str, ...] | None:
    """Return the pipeline's entrance for an address, and what of the address it needs; ``None`` for another's."""
    if method == "GET" and path.startswith(f"{MODELS}/") and path != f"{MODELS}/":
        return ("retrieve_model", path.removeprefix(f"{MODELS}/"))
    return _ROUTES.get((method, path))


_ROUTES = {("POST", CHAT): ("complete_chat",), ("GET", MODELS): ("list_models",)}
