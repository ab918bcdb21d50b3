"""A provider over real HTTP for tests: OpenAI-compatible, in a thread of its own, on 127.0.0.1 and a free port.

    with MockUpstream() as upstream:
        upstream.base_url                                    # "http://127.0.0.1:<port>/v1"
        upstream.script(Behaviour(status=500), Behaviour())  # the next two calls, in order
        upstream.wait_for_calls(2)[0].json["model"]

How it behaves is said by a `Behaviour`: the next one of the script, or else by directives in the last user message,
which need no state shared between parallel tests: ``mock:status=429,retry_after=7``. A directive's values are
percent-decoded (``text=a%20b``) and name the fields of `Behaviour`. ``python -m
tests.mock_upstream PORT`` serves it alone.
"""

import asyncio
import gzip
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self
from urllib.parse import unquote

import orjson
import pytest
from aiohttp import web

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the upstream does with one call. Times are seconds, usage is tokens."""

    text: str = "Hello from the mock upstream."
    words: int = 0  # answer with this many words instead of `text`; streamed, each is a chunk
    input_tokens: int = -1  # -1: the messages' words
    output_tokens: int = -1  # -1: the answer's words, times n
    cached_tokens: int = 0
    no_usage: bool = False
    delay: float = 0.0  # before the headers
    first: float = 0.0  # between a stream's headers and its first chunk
    gap: float = 0.0  # between chunks
    status: int = 200
    message: str = "The mock upstream refuses."
    code: str = ""
    retry_after: str = ""
    redirect: str = ""
    tool: str = ""  # call this function
    arguments: str = "{}"
    breaks: str = ""  # "headers", "body" or "stream": where the connection ends
    after: int = 1  # chunks before a stream breaks, hangs or reports an error
    hang: str = ""  # "headers" or "stream": where the upstream falls silent
    error_event: bool = False
    no_done: bool = False
    tail: float = 0.0  # between a stream's [DONE] and the end of the answer
    garbage: str = ""  # a name in GARBAGE, "huge" or "gzip_bomb"
    gzipped: bool = False


GARBAGE: dict[str, bytes] = {
    "text": b"this is not JSON",
    "html": b"<!doctype html><title>502</title>",
    "list": b"[1, 2, 3]",
    "shape": b'{"object": "chat.completion", "choices": 7}',
    "empty": b"",
    "nan": b'{"choices": [], "usage": NaN}',
    "utf8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "deep": b'{"choices": ' + b"[" * 900 + b"]" * 900 + b"}",
    "usage": b'{"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": 1}}',
}
HUGE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Call:
    """One request as it was received. ``left`` becomes true if the client went away before its answer's end."""

    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    json: Any = None
    client_port: int = 0  # the same for calls over one connection
    left: bool = False


class MockUpstream:
    """The server. Its public methods may be called from any thread."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self.models = ["gpt-4o-mini"]
        """What a list of models says, which is no call."""
        self.key = ""
        """The only key that gets that list; without one, every key does."""
        self.listing = Behaviour()
        """How it is answered."""
        self.listed: list[dict[str, str]] = []
        """The headers with which it was asked for."""
        self._calls: list[Call] = []
        self._script: deque[Behaviour] = deque()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="mock-upstream", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the mock upstream did not start")

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def script(self, *behaviours: Behaviour) -> None:
        """Set what the next calls do, in order, before directives count again."""
        with self._changed:
            self._script.extend(behaviours)

    @property
    def calls(self) -> list[Call]:
        """Every call to the API so far, in the order of arrival."""
        with self._changed:
            return list(self._calls)

    def calls_with(self, marker: str) -> list[Call]:
        """The calls whose body holds a text."""
        return [call for call in self.calls if marker.encode() in call.body]

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> list[Call]:
        """Wait until there have been so many calls; give them all."""
        self._wait_until(lambda: len(self._calls) >= count, f"{count} calls", timeout)
        return self.calls

    def wait_until_left(self, call: Call, timeout: float = 10.0) -> None:
        """Wait until the client of a call has gone away."""
        self._wait_until(lambda: call.left, "the client to leave", timeout)

    def reset(self) -> None:
        """Forget the calls and the script."""
        with self._changed:
            self._calls.clear()
            self._script.clear()

    def _wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                pytest.fail(f"the mock upstream waited in vain for {what}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_get("/{path:.*}", self._list_models)
        app.router.add_post("/{path:.*}", self._answer)
        # Cancelling handlers is how a client's leaving is noticed while an answer waits.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.listed.append(headers)
        if self.key and self.key not in (headers.get("x-api-key"), headers.get("authorization", "")[len("Bearer ") :]):
            return _error(Behaviour(status=401, message=f"Incorrect API key provided: {headers.get('authorization')}"))
        if self.listing != Behaviour():
            return await _answer(request, Call(request.path, headers, b""), self.listing)
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "mock"} for name in self.models]
        return _json({"object": "list", "data": data, "has_more": False})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        client_port = request.transport.get_extra_info("peername")[1]
        call = Call(request.path, headers, body, _loads(body), client_port)
        behaviour = self._next_behaviour(call)
        try:
            return await _answer(request, call, behaviour)
        except (asyncio.CancelledError, ConnectionError):
            with self._changed:
                call.left = True
                self._changed.notify_all()
            raise

    def _next_behaviour(self, call: Call) -> Behaviour:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
            if self._script:
                return self._script.popleft()
        return directed(_last_user_text(call.json))


def directed(text: str) -> Behaviour:
    """Read the directives in a text: every word that starts with ``mock:``."""
    behaviour = Behaviour()
    kinds = {item.name: type(getattr(behaviour, item.name)) for item in fields(Behaviour)}
    for word in text.split():
        if word.startswith("mock:"):
            pairs = (pair.partition("=") for pair in word[5:].split(","))
            values = {name: _read(kinds[name], value) for name, _, value in pairs if name in kinds}
            behaviour = replace(behaviour, **values)
    return behaviour


def _read(kind: type, value: str) -> Any:
    return value not in {"0", "false"} if kind is bool else kind(unquote(value))


async def _answer(request: web.Request, call: Call, behaviour: Behaviour) -> web.StreamResponse:
    await asyncio.sleep(behaviour.delay)
    if behaviour.hang == "headers":
        await asyncio.Event().wait()
    if behaviour.breaks == "headers":
        return _abort(request)
    if behaviour.garbage:
        return await _answer_garbage(request, behaviour.garbage)
    if behaviour.redirect:
        return web.Response(status=307, headers={"location": behaviour.redirect})
    if behaviour.status != 200:
        return _error(behaviour)
    return await _answer_well(request, call, behaviour)


async def _answer_well(request: web.Request, call: Call, behaviour: Behaviour) -> web.StreamResponse:
    if not isinstance(call.json, dict):
        return _error(replace(behaviour, status=400, message="The body is not a JSON object."))
    if call.path.endswith("/embeddings"):
        return _embeddings(call.json, behaviour)
    if call.json.get("stream") is True:
        return await _stream(request, call.json, behaviour)
    return await _whole(request, call.json, behaviour)


def _abort(request: web.Request) -> web.StreamResponse:
    """End the connection without another byte; what is returned is never sent."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _error(behaviour: Behaviour) -> web.Response:
    kind = "server_error" if behaviour.status >= 500 else "invalid_request_error"
    error = {"message": behaviour.message, "type": kind, "param": None, "code": behaviour.code or None}
    headers = {"retry-after": behaviour.retry_after} if behaviour.retry_after else {}
    return _json({"error": error}, behaviour.status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type=JSON, headers=headers)


async def _answer_garbage(request: web.Request, name: str) -> web.StreamResponse:
    if name == "huge":
        return await _stream_huge(request)
    if name == "gzip_bomb":
        # Members of a gzip file may follow one another: a bomb of any size from one small member.
        body = gzip.compress(b" " * 1024 * 1024) * (HUGE_BYTES // (1024 * 1024))
        return web.Response(body=body, content_type=JSON, headers={"content-encoding": "gzip"})
    if name == "not_gzip":
        return web.Response(body=b"{}", content_type=JSON, headers={"content-encoding": "gzip"})
    if name == "not_http":
        return _raw(request, b"\x00\x01\x02 this is not HTTP\r\n\r\n")
    if name == "chunking":
        return _raw(request, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a number\r\n")
    return web.Response(body=GARBAGE[name], content_type=JSON)


def _raw(request: web.Request, data: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(data)
    request.transport.close()
    return web.Response()


async def _stream_huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": JSON})
    await response.prepare(request)
    for _ in range(HUGE_BYTES // 65536):
        await response.write(b" " * 65536)
    return response


def _words(body: dict[str, Any], behaviour: Behaviour) -> list[str]:
    words = behaviour.text.split(" ")
    if behaviour.words:
        words = [f"word{number}" for number in range(behaviour.words)]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return words[:limit]


def _usage(body: dict[str, Any], behaviour: Behaviour, words: int) -> dict[str, Any]:
    asked = sum(len(_text(message.get("content")).split()) for message in body.get("messages") or ())
    sent = asked if behaviour.input_tokens < 0 else behaviour.input_tokens
    produced = words * (body.get("n") or 1) if behaviour.output_tokens < 0 else behaviour.output_tokens
    return {
        "prompt_tokens": sent,
        "completion_tokens": produced,
        "total_tokens": sent + produced,
        "prompt_tokens_details": {"cached_tokens": behaviour.cached_tokens},
    }


def _envelope(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": kind, "created": int(time.time()), "model": body.get("model")}


def _message(behaviour: Behaviour, words: list[str]) -> dict[str, Any]:
    if behaviour.tool:
        function = {"name": behaviour.tool, "arguments": behaviour.arguments}
        calls = [{"id": "call_mock", "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": "assistant", "content": " ".join(words)}


def _logprobs(body: dict[str, Any], words: list[str]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    return {"content": [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word in words]}


def _completion(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    words = _words(body, behaviour)
    choice = {
        "message": _message(behaviour, words),
        "logprobs": _logprobs(body, words),
        "finish_reason": "tool_calls" if behaviour.tool else "stop",
    }
    choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
    answer = {**_envelope("chat.completion", body), "choices": choices}
    return answer if behaviour.no_usage else {**answer, "usage": _usage(body, behaviour, len(words))}


async def _whole(request: web.Request, body: dict[str, Any], behaviour: Behaviour) -> web.StreamResponse:
    data = orjson.dumps(_completion(body, behaviour))
    if behaviour.breaks == "body":
        response = web.StreamResponse(headers={"content-type": JSON, "content-length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        return _abort(request)
    if behaviour.gzipped:
        headers = {"content-encoding": "gzip"}
        return web.Response(body=gzip.compress(data), content_type=JSON, headers=headers)
    return web.Response(body=data, content_type=JSON)


def _steps(body: dict[str, Any], behaviour: Behaviour) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield each content delta of a stream with its logprobs."""
    if behaviour.tool:
        call = {"index": 0, "id": "call_mock", "type": "function"}
        yield {"tool_calls": [{**call, "function": {"name": behaviour.tool, "arguments": ""}}]}, None
        yield {"tool_calls": [{"index": 0, "function": {"arguments": behaviour.arguments}}]}, None
        return
    for number, word in enumerate(_words(body, behaviour)):
        yield {"content": f" {word}" if number else word}, _logprobs(body, [word])


async def _stream(request: web.Request, body: dict[str, Any], behaviour: Behaviour) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    envelope = _envelope("chat.completion.chunk", body)
    indices = range(body.get("n") or 1)

    async def send(delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None) -> None:
        step = {"delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        for index in indices:
            await _send_event(response, {**envelope, "choices": [{"index": index, **step}]})

    await asyncio.sleep(behaviour.first)
    await send({"role": "assistant", "content": ""})
    for number, (delta, logprobs) in enumerate(_steps(body, behaviour)):
        if number == behaviour.after and await _interrupted(request, response, behaviour):
            return response
        if number and behaviour.gap:
            await asyncio.sleep(behaviour.gap)
        await send(delta, logprobs)
    await send({}, finish_reason="tool_calls" if behaviour.tool else "stop")
    if (body.get("stream_options") or {}).get("include_usage") and not behaviour.no_usage:
        usage = _usage(body, behaviour, len(_words(body, behaviour)))
        await _send_event(response, {**envelope, "choices": [], "usage": usage})
    if not behaviour.no_done:
        await response.write(b"data: [DONE]\n\n")
    await asyncio.sleep(behaviour.tail)
    return response


async def _send_event(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + orjson.dumps(event) + b"\n\n")


async def _interrupted(request: web.Request, response: web.StreamResponse, behaviour: Behaviour) -> bool:
    if behaviour.hang == "stream":
        await asyncio.Event().wait()
    if behaviour.error_event:
        error = {"message": behaviour.message, "type": "server_error", "code": behaviour.code or None}
        await _send_event(response, {"error": error})
        return True
    if behaviour.breaks == "stream":
        # What was written must leave before the connection ends, or the client sees fewer chunks.
        await asyncio.sleep(0.05)
        _abort(request)
        return True
    return False


def _embeddings(body: dict[str, Any], behaviour: Behaviour) -> web.Response:
    inputs = body["input"] if isinstance(body.get("input"), list) else [body.get("input")]
    data = [{"object": "embedding", "index": i, "embedding": [0.1, 0.2, 0.3]} for i in range(len(inputs))]
    counted = sum(len(str(text).split()) for text in inputs)
    tokens = counted if behaviour.input_tokens < 0 else behaviour.input_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "model": body.get("model"), "data": data, "usage": usage})


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _last_user_text(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    if isinstance(body.get("input"), str):
        return body["input"]
    messages = body.get("messages") or []
    return next((_text(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or "" for part in content or ())


if __name__ == "__main__":
    with MockUpstream(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as served:
        print(served.base_url, flush=True)
        threading.Event().wait()
