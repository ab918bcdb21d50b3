"""The simulated provider: an origin inside the process that answers as OpenAI's chat completions would.

The model's name chooses the behaviour:

    sim-echo               the last user message's text
    sim-usage-<in>-<out>   a short text, and a report of exactly that usage
    sim-slow-<ms>          the last user message's text, after a wait
    sim-stream-<n>         n words; streamed, they are 10 ms apart
    sim-error-<status>     that HTTP status with an error of OpenAI's shape
    sim-broken-<n>         n words of a stream, then the connection breaks; not streamed, it breaks at once

Its tokens are words between white space, at least one a side. Shapes: OpenAI's API reference, "Chat completions" and
"Embeddings".
"""

import asyncio
import base64
import hashlib
import re
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from apps.gateway.providers.base import Body, UpstreamRequest, Usage

SCHEME = "simulated://"

_CHUNK_SECONDS = 0.01
_MAX_CHOICES = 128
_EMBEDDING_DIMENSIONS = 8
_MAX_EMBEDDING_DIMENSIONS = 4096
_USAGE_TEXT = "A simulated answer."
_WORD = re.compile(r"\s*\S+")

# Of each kind: the form of its numbers and the least and the most that each of them may be.
_KINDS: dict[str, tuple[tuple[int, int], ...]] = {
    "echo": (),
    "usage": ((0, 10**9), (0, 10**9)),
    "slow": ((0, 600_000),),
    "stream": ((0, 100_000),),
    "error": ((400, 599),),
    "broken": ((0, 100_000),),
}
_MODEL = re.compile(r"sim-([a-z]+)((?:-[0-9]{1,10})*)")


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A behaviour and its numbers, as read from a model's name."""

    kind: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """An HTTP answer. ``body`` is whole, or the stream's bytes as they come."""

    status: int
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] = field(repr=False)


def simulated_models() -> list[str]:
    """Give one model id of each kind."""
    return ["sim-echo", "sim-usage-10-20", "sim-slow-500", "sim-stream-20", "sim-error-500", "sim-broken-3"]


def is_simulated_model(name: str) -> bool:
    """Say whether the simulated provider has this model."""
    return read_model(name) is not None


def read_model(name: object) -> SimulatedModel | None:
    """Read a model's name; ``None`` if there is no such model or a number is out of its bounds."""
    found = _MODEL.fullmatch(name) if isinstance(name, str) else None
    if found is None or (bounds := _KINDS.get(found[1])) is None:
        return None
    numbers = tuple(int(digits) for digits in found[2].split("-")[1:])
    if len(numbers) != len(bounds):
        return None
    if not all(least <= number <= most for number, (least, most) in zip(numbers, bounds, strict=True)):
        return None
    return SimulatedModel(found[1], numbers)


@dataclass(frozen=True, slots=True)
class Production:
    """What a model answers to a request, before it is put into HTTP: the words of each choice, or a tool's name."""

    words: list[str] = field(repr=False)
    tool: str | None
    finish_reason: str
    choices: int
    usage: Usage


def produce(model: SimulatedModel, body: Body) -> Production:
    """Work out the answer to a chat completion body and the usage it reports."""
    tool = _forced_tool(body)
    words = [] if tool else _words(model, body)
    most = output_limit(body)
    cut = most is not None and model.kind != "usage" and len(words) > most
    if cut:
        words = words[:most]
    choices = choice_count(body) or 1
    finish_reason = "tool_calls" if tool else "length" if cut else "stop"
    usage = _usage(model, body, max(len(words), 1) * choices)
    return Production(words, tool, finish_reason, choices, usage)


def output_limit(body: Body) -> int | None:
    """Give the most tokens that a choice may have, as the request says; ``None`` where it does not."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if type(limit) is int and limit > 0:
            return limit
    return None


def choice_count(body: Body) -> int | None:
    """Give how many choices the request asks for; ``None`` if that is no number from 1 to 128."""
    count = body.get("n")
    if count is None:
        return 1
    return count if type(count) is int and 1 <= count <= _MAX_CHOICES else None


def count_input(model: SimulatedModel | None, body: Body) -> int:
    """Count the input tokens that a request is reported with."""
    if model is not None and model.kind == "usage":
        return model.numbers[0]
    texts = (_text(message.get("content")) for message in _messages(body))
    return max(sum(len(text.split()) for text in texts), 1)


def _usage(model: SimulatedModel, body: Body, produced: int) -> Usage:
    output = model.numbers[1] if model.kind == "usage" else produced
    return Usage(count_input(model, body), output)


def _words(model: SimulatedModel, body: Body) -> list[str]:
    """Split the answer's text so that the pieces joined give it again."""
    if model.kind in {"stream", "broken"}:
        return [f"{' ' if number else ''}word{number}" for number in range(model.numbers[0])]
    text = _USAGE_TEXT if model.kind == "usage" else _echo(body)
    words = _WORD.findall(text.rstrip())  # in spaces that no word follows, it would start anew at each of them
    rest = text[sum(map(len, words)) :]
    if rest:
        words = [*words[:-1], words[-1] + rest] if words else [rest]
    return words


def _echo(body: Body) -> str:
    text = next((_text(m.get("content")) for m in reversed(_messages(body)) if m.get("role") == "user"), "")
    response_format = body.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind in {"json_object", "json_schema"} and not _is_json(text):
        return orjson.dumps({"echo": text}).decode()
    return text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _messages(body: Body) -> list[Body]:
    messages = body.get("messages")
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _forced_tool(body: Body) -> str | None:
    """Name the function that the request forces the model to call."""
    choice = body.get("tool_choice")
    named = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    names = [_function_name(tool) for tool in named]
    wanted = _function_name(choice) if isinstance(choice, dict) else None
    if choice == "required":
        return next((name for name in names if name), None)
    return wanted if wanted in names else None


def _function_name(tool: Body) -> str | None:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


async def respond(request: UpstreamRequest) -> SimulatedAnswer:
    """Answer a request to ``simulated://local/...`` as OpenAI's API would.

    Raises ``ConnectionResetError`` where the connection breaks: here, or from the iterator of a stream's bytes.
    """
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return _error(400, "We could not parse the JSON body of your request.")
    if not isinstance(body, dict):
        return _error(400, "The body must be a JSON object.")
    model = read_model(body.get("model"))
    if model is None:
        return _error(404, "The model does not exist or you do not have access to it.", "model_not_found")
    if model.kind == "slow":
        await asyncio.sleep(model.numbers[0] / 1000)
    if model.kind == "error":
        return _error(model.numbers[0], f"The simulated provider answers with {model.numbers[0]}.")
    path = request.url.rpartition("/")[2]
    return _embeddings(model, body) if path == "embeddings" else _chat_completion(model, body)


def _error(status: int, message: str, code: str | None = None) -> SimulatedAnswer:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    headers = {"retry-after": "1"} if status in {429, 503} else {}
    return _json(body, status=status, headers=headers)


def _json(body: Body, *, status: int = 200, headers: Mapping[str, str] | None = None) -> SimulatedAnswer:
    return SimulatedAnswer(status, {"content-type": "application/json", **(headers or {})}, orjson.dumps(body))


def _chat_completion(model: SimulatedModel, body: Body) -> SimulatedAnswer:
    if choice_count(body) is None:
        return _error(400, f"'n' must be from 1 to {_MAX_CHOICES}.")
    production = produce(model, body)
    if body.get("stream") is True:
        events = _stream_events(model, body, production)
        pause = _CHUNK_SECONDS if model.kind == "stream" else 0
        return SimulatedAnswer(200, {"content-type": "text/event-stream; charset=utf-8"}, _Paced(events, pause))
    if model.kind == "broken":
        raise ConnectionResetError
    message = _message(production)
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": production.finish_reason}
        for index in range(production.choices)
    ]
    envelope = _envelope("chat.completion", body)
    return _json({**envelope, "choices": choices, "usage": _usage_body(production.usage)})


def _envelope(kind: str, body: Body) -> Body:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
    }


def _usage_body(usage: Usage) -> Body:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _message(production: Production) -> Body:
    if production.tool:
        call = _tool_call(production.tool, "{}")
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    return {"role": "assistant", "content": "".join(production.words), "refusal": None}


def _tool_call(name: str, arguments: str) -> Body:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _deltas(production: Production) -> Iterator[Body]:
    if production.tool:
        yield {"tool_calls": [{"index": 0, **_tool_call(production.tool, "")}]}
        yield {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    for word in production.words:
        yield {"content": word}


def _stream_events(model: SimulatedModel, body: Body, production: Production) -> Iterator[bytes]:
    """Yield a stream's bytes, one piece for each step of all choices."""
    envelope = _envelope("chat.completion.chunk", body)
    indices = range(production.choices)

    def step(delta: Body, finish_reason: str | None = None) -> bytes:
        return b"".join(_event({**envelope, "choices": [_choice(i, delta, finish_reason)]}) for i in indices)

    yield step({"role": "assistant", "content": None if production.tool else "", "refusal": None})
    yield from map(step, _deltas(production))
    if model.kind == "broken":
        raise ConnectionResetError
    yield step({}, production.finish_reason) + _usage_event(envelope, body, production) + b"data: [DONE]\n\n"


def _choice(index: int, delta: Body, finish_reason: str | None) -> Body:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(chunk: Body) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _usage_event(envelope: Body, body: Body, production: Production) -> bytes:
    options = body.get("stream_options")
    if not (isinstance(options, dict) and options.get("include_usage") is True):
        return b""
    return _event({**envelope, "choices": [], "usage": _usage_body(production.usage)})


class _Paced:
    """Gives pieces with a pause before each but the first. No generator: it may be left anywhere, unclosed."""

    def __init__(self, pieces: Iterable[bytes], pause: float) -> None:
        self._pieces = iter(pieces)
        self._pause = pause
        self._started = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None
        if self._started:
            await asyncio.sleep(self._pause)
        self._started = True
        return piece


def _embeddings(model: SimulatedModel, body: Body) -> SimulatedAnswer:
    given = body.get("input")
    inputs: list[Any] = given if isinstance(given, list) else [given]
    if not inputs or not all(isinstance(text, str) for text in inputs):
        return _error(400, "'input' must be a text or a list of texts.")
    dimensions = body.get("dimensions", _EMBEDDING_DIMENSIONS)
    if type(dimensions) is not int or not 1 <= dimensions <= _MAX_EMBEDDING_DIMENSIONS:
        return _error(400, f"'dimensions' must be from 1 to {_MAX_EMBEDDING_DIMENSIONS}.")
    vectors = [_vector(text, dimensions) for text in inputs]
    encode = _base64 if body.get("encoding_format") == "base64" else list[float]
    data = [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)]
    counted = max(sum(len(text.split()) for text in inputs), 1)
    tokens = model.numbers[0] if model.kind == "usage" else counted
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": body["model"], "usage": usage})


def _vector(text: str, dimensions: int) -> list[float]:
    """Derive numbers from -1 to 1 from a text: the same for the same text, on every machine."""
    digest = hashlib.shake_128(text.encode()).digest(dimensions)
    return [byte / 127.5 - 1 for byte in digest]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
