"""OpenAI's dialect, which every OpenAI-compatible base URL speaks too.

Shapes: OpenAI's API reference, "Chat completions", "Embeddings" and "Errors".
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from apps.gateway.providers.base import (
    Body,
    Chunk,
    ChunkParser,
    Endpoint,
    Fault,
    Reply,
    TokenBound,
    UpstreamError,
    UpstreamRequest,
    Usage,
)

# More than any model can use in one call, and within a database's integer.
_MAX_TOKENS = 10**9

# What a provider adds around the texts: the mark-up of a message (3 to 4 tokens) or of a tool, and once the opening
# of the answer and of a hidden preamble.
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_CALL = 64

# For estimates only, which never bound anything.
_CHARS_PER_TOKEN = 4  # of English text or code; other scripts come closer to a token for each character
_TOKENS_PER_MEDIUM = 1000  # an image, a file or a sound

# orjson writes less deeply nested values than it reads.
_MAX_DEPTH_WRITTEN = 250

_OPTIONAL_TEXT = (str, type(None))

_REFUSALS = frozenset({400, 404, 413, 422, 429})
_MESSAGE_CHARS = 500
_DETAIL_CHARS = 100
_MESSAGE_CHARS_READ = 10_000
_MAX_RETRY_AFTER_SECONDS = 86_400.0

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_KEYS = re.compile(
    r"(?i:bearer\s+)\S+"
    r"|(?<![\w-])eyJ[\w-]+\.[\w.-]*"  # a JSON web token
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{8,}"
    r"|\b(?i:sk|pk|rk|xai|gsk|key|api[-_]?key)[-_][\w*.-]{6,}"
    r"|(?<![\w*-])(?=[\w*-]*\d)[\w*-]{32,}"  # anything long that is no word
)


class OpenAIAdapter:
    """Speaks OpenAI's dialect. Holds no state."""

    name = "openai"

    def build_request(self, endpoint: Endpoint, model: str, body: Body) -> UpstreamRequest:
        """Build a chat completion request: ``body`` with the provider's model name; a stream reports its usage.

        ``metadata`` labels a request for the gateway's own record. OpenAI refuses it but for answers that it stores.
        """
        sent = {**body, "model": model}
        if sent.get("store") is not True:
            sent.pop("metadata", None)
        if sent.get("stream") is True:
            sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}
        return _post(endpoint, "/chat/completions", sent)

    def parse_reply(self, body: bytes) -> Reply:
        """Read a whole ``chat.completion``. Raises `UpstreamError` (GARBAGE) if it is not one."""
        reply = _json_object(body)
        _check_choices(reply, _has_message)
        return Reply(reply, _usage(reply))

    def chunk_parser(self) -> ChunkParser:
        """Make the parser of one streamed answer."""
        return OpenAIChunkParser()

    def map_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an answer that is not 2xx; only a refusal of the request keeps the provider's own message."""
        retry_after = _retry_after(headers.get("retry-after", ""))
        if status in {401, 403}:
            # Its text may quote a part of the key.
            return UpstreamError(Fault.CREDENTIAL, "The provider refused the gateway's credential.", status=status)
        if status not in _REFUSALS:
            message = f"The provider failed with status {status}."
            return UpstreamError(Fault.SERVER, message, status=status, retry_after=retry_after)
        message, details = _refusal(body)
        message = message or f"The provider refused the request with status {status}."
        return UpstreamError(Fault.REFUSED, message, status=status, retry_after=retry_after, details=details)

    def bound(self, model: str, body: Body, size: int, context_window: int | None) -> TokenBound:
        """Bound the tokens of a chat completion; `TokenBound.why` names the field to change."""
        input_tokens, input_why = _bound_input(body, size, context_window)
        output_tokens, output_why = _bound_output(body, context_window)
        return TokenBound(input_tokens, output_tokens, " ".join(why for why in (input_why, output_why) if why))

    def expected(self, model: str, body: Body) -> Usage:
        """Estimate before the call: the input by its length, the output by the request's own limit or not at all."""
        output_tokens, _ = _bound_output(body, None)
        return Usage(_estimated_input(body), output_tokens or 0)

    def estimate(self, body: Body, produced: str) -> Usage:
        """Estimate what an unfinished answer used, by the length of what was sent and what came."""
        return Usage(_estimated_input(body), _estimated_tokens(produced))

    def build_embeddings_request(self, endpoint: Endpoint, model: str, body: Body) -> UpstreamRequest:
        """Build an embeddings request: ``body`` with the provider's model name."""
        return _post(endpoint, "/embeddings", {**body, "model": model})

    def parse_embeddings_reply(self, body: bytes) -> Reply:
        """Read a list of embeddings; its usage has no output. Raises `UpstreamError` (GARBAGE) if it is not one."""
        reply = _json_object(body)
        data = reply.get("data")
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise _garbage("has no list of embeddings")
        return Reply(reply, _usage(reply, output_required=False))


class OpenAIChunkParser:
    """Reads the events of one streamed chat completion."""

    def __init__(self) -> None:
        self._done = False

    def parse(self, event: bytes) -> Sequence[Chunk]:
        """Turn one event's data into at most one chunk. Raises `UpstreamError`: GARBAGE, or SERVER for an error."""
        if self._done or not event.strip():
            return ()
        if event == b"[DONE]":
            self._done = True
            return (Chunk(b"", {}, done=True),)
        chunk = _json_object(event)
        if chunk.get("error"):
            raise _stream_error(chunk["error"])
        usage = _usage(chunk)
        if usage is not None and chunk.get("choices") is None:
            chunk["choices"] = []
        _check_choices(chunk, _has_delta)
        # Written anew: duplicate keys or line breaks in the provider's bytes would mean something else downstream.
        return (Chunk(orjson.dumps(chunk), chunk, usage, usage_only=usage is not None and not chunk["choices"]),)


def _post(endpoint: Endpoint, path: str, body: Body) -> UpstreamRequest:
    headers = {"content-type": "application/json"}
    if endpoint.secret:
        headers["authorization"] = f"Bearer {endpoint.secret}"
    url = endpoint.base_url.rstrip("/") + path
    return UpstreamRequest("POST", url, headers, orjson.dumps(body), endpoint.trusted)


def _garbage(what: str) -> UpstreamError:
    return UpstreamError(Fault.GARBAGE, f"The provider's answer {what}.")


def _json_object(data: bytes) -> Body:
    try:
        value = orjson.loads(data)
        if data.count(b"{") + data.count(b"[") > _MAX_DEPTH_WRITTEN:
            orjson.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        raise _garbage("is not valid JSON") from None
    if not isinstance(value, dict):
        raise _garbage("is not a JSON object")
    return value


def _check_choices(answer: Body, is_valid: Callable[[Body], bool]) -> None:
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise _garbage("has no list of choices")
    for choice in choices:
        if not (isinstance(choice, dict) and type(choice.get("index", 0)) is int and is_valid(choice)):
            raise _garbage("has a choice that is none")


def _has_message(choice: Body) -> bool:
    message = choice.get("message")
    if not isinstance(message, dict):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(map(_is_part, content)) and _is_delta({**message, "content": None})
    return _is_delta(message)


def _has_delta(choice: Body) -> bool:
    delta = choice.get("delta")
    return delta is None or (isinstance(delta, dict) and _is_delta(delta))


def _is_delta(delta: Body) -> bool:
    """Say whether the parts that hold text have OpenAI's shape: what could not be inspected must not pass."""
    return (
        isinstance(delta.get("content"), _OPTIONAL_TEXT)
        and isinstance(delta.get("refusal"), _OPTIONAL_TEXT)
        and ("tool_calls" not in delta or _are_calls(delta["tool_calls"]))
    )


def _is_part(part: object) -> bool:
    return isinstance(part, dict) and (part.get("type") != "text" or isinstance(part.get("text"), str))


def _are_calls(calls: object) -> bool:
    return calls is None or (isinstance(calls, list) and all(map(_is_call, calls)))


def _is_call(call: object) -> bool:
    if not isinstance(call, dict) or type(call.get("index", 0)) is not int:
        return False
    function = call.get("function")
    if not isinstance(function, dict):
        return function is None
    return all(isinstance(function.get(name), _OPTIONAL_TEXT) for name in ("name", "arguments"))


def _usage(answer: Body, *, output_required: bool = True) -> Usage | None:
    usage = answer.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise _garbage("reports no valid usage")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    output = usage.get("completion_tokens", None if output_required else 0)
    counted = Usage(_tokens(usage.get("prompt_tokens")), _tokens(output), _tokens(cached or 0))
    if counted.cache_read_tokens > counted.input_tokens:
        raise _garbage("reports no valid usage")
    return counted


def _tokens(count: object) -> int:
    if type(count) is not int or not 0 <= count <= _MAX_TOKENS:
        raise _garbage("reports no valid usage")
    return count


def _stream_error(error: object) -> UpstreamError:
    details = _error_details(error) if isinstance(error, dict) else {}
    message = "The provider reported an error in the middle of its answer."
    return UpstreamError(Fault.SERVER, message, details=details)


def _refusal(body: bytes) -> tuple[str, dict[str, Any]]:
    """Find the message and the details in an error body, of OpenAI's shape or of the flat ones seen elsewhere."""
    try:
        answer = _json_object(body)
    except UpstreamError:
        return "", {}
    error = answer.get("error", answer)
    if isinstance(error, str):
        return _safe_text(error, _MESSAGE_CHARS), {}
    if not isinstance(error, dict):
        return "", {}
    message = error.get("message")
    text = _safe_text(message, _MESSAGE_CHARS) if isinstance(message, str) else ""
    return text, _error_details(error)


def _error_details(error: Body) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for name in ("type", "param", "code"):
        value = error.get(name)
        if isinstance(value, str):
            details[name] = _safe_text(value, _DETAIL_CHARS)
        elif type(value) is int:
            details[name] = value
    return details


def _safe_text(text: str, most: int) -> str:
    text = _CONTROL_CHARACTERS.sub(" ", text[:_MESSAGE_CHARS_READ])
    return _KEYS.sub("[redacted]", text).strip()[:most]


def _retry_after(value: str) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3) as seconds from now."""
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value)
    return min(seconds, _MAX_RETRY_AFTER_SECONDS) if seconds >= 0 and math.isfinite(seconds) else None


def _seconds_until(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def _bound_input(body: Body, size: int, context_window: int | None) -> tuple[int | None, str]:
    """Bound the input tokens, or say why that is not possible.

    Every token of a byte-level tokenizer stands for at least one byte of text, so the texts' UTF-8 bytes bound their
    tokens; a tokenizer with byte fallback splits no finer. The body as sent holds every text in at least as many
    bytes, and the names and brackets around it are more than the provider's own mark-up; the constants are for
    what the provider adds beyond that. It does not hold for what is not text, or is fetched by the provider.
    """
    if dear := _dearer_than_tokens(body):
        return None, f"The cost of {dear} cannot be bounded: leave it out."
    extra = _beyond_text(body)
    if not extra:
        pieces = len(body.get("messages") or ()) + len(body.get("tools") or ())
        return size + _TOKENS_PER_MESSAGE * pieces + _TOKENS_PER_CALL, ""
    if context_window is not None:
        return context_window, ""
    return None, f"The input tokens of {extra} cannot be bounded for this model: leave it out."


def _dearer_than_tokens(body: Body) -> str:
    """Name the first thing whose cost the price of text tokens does not bound, however many tokens a model reads.

    A tool that the provider runs is charged by the call, and reads anew as often as it likes; audio has a price of
    its own.
    """
    if body.get("web_search_options") is not None:
        return "web_search_options"
    for tool in body.get("tools") or ():
        if not isinstance(tool, dict) or tool.get("type") not in {"function", "custom"}:
            return "a tool that the provider runs"
    return "audio" if any(map(_has_audio, body.get("messages") or ())) else ""


def _has_audio(message: object) -> bool:
    if not isinstance(message, dict):
        return False
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return message.get("audio") is not None or any(
        isinstance(part, dict) and "audio" in str(part.get("type")) for part in parts
    )


def _beyond_text(body: Body) -> str:
    """Say what in a body has tokens that its bytes do not bound; empty if there is nothing."""
    if all(_is_text(message) for message in body.get("messages") or ()):
        return ""
    return "content that is not text"


def _is_text(message: object) -> bool:
    if not isinstance(message, dict) or message.get("audio") is not None:
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") in {"text", "refusal"} for part in content)
    return content is None or isinstance(content, str)


def _bound_output(body: Body, context_window: int | None) -> tuple[int | None, str]:
    """Bound the output tokens of all choices, or say why that is not possible."""
    choices = body.get("n")
    choices = 1 if choices is None else choices
    if not _is_count(choices):
        return None, "n must be a positive integer."
    if any(modality != "text" for modality in body.get("modalities") or ()):
        return None, "The cost of output other than text cannot be bounded: leave modalities out."
    limits = [body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    if not all(_is_count(limit) for limit in limits):
        return None, "max_completion_tokens must be a positive integer."
    # Given both, a provider may obey either.
    each = max(limits) if limits else context_window
    if each is None:
        return None, "The output tokens cannot be bounded for this model: set max_completion_tokens."
    return each * choices, ""


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _estimated_tokens(text: str) -> int:
    ascii_chars = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_chars / _CHARS_PER_TOKEN) + len(text) - ascii_chars


def _estimated_input(body: Body) -> int:
    definitions = [body[name] for name in ("tools", "functions", "response_format") if body.get(name)]
    tokens = sum(_estimated_tokens(orjson.dumps(definition).decode()) for definition in definitions)
    return tokens + sum(map(_estimated_message, body.get("messages") or ()))


def _estimated_message(message: object) -> int:
    if not isinstance(message, dict):
        return 0
    content, calls = message.get("content"), message.get("tool_calls")
    tokens = _TOKENS_PER_MESSAGE
    if isinstance(content, str):
        tokens += _estimated_tokens(content)
    elif isinstance(content, list):
        tokens += sum(map(_estimated_part, content))
    return tokens + (_estimated_tokens(orjson.dumps(calls).decode()) if calls else 0)


def _estimated_part(part: object) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return _estimated_tokens(text) if isinstance(text, str) else _TOKENS_PER_MEDIUM
