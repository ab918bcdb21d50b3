"""The request's body, read once: its shape checked as far as the gateway depends on it, everything else kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.gateway.errors import InvalidRequest
from apps.gateway.providers.base import Body
from apps.orgs.strict_json import StrictJsonError, parse_strict
from apps.policies.engine.kinds import Feature

MAX_MODEL_CHARACTERS = 256
MAX_END_USER_CHARACTERS = 256
MAX_METADATA_ENTRIES = 16
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 512
MAX_CHOICES = 128
MAX_TOKENS = 10**9

_OPTIONAL_TEXT = (str, type(None))
_FLAG, _TEXT, _OBJECT = ((bool,), "true or false"), ((str,), "a text"), ((dict,), "an object")
PASSED_ON: dict[str, tuple[tuple[type, ...], str]] = {
    "logprobs": _FLAG,
    "store": _FLAG,
    "parallel_tool_calls": _FLAG,
    "seed": ((int,), "a whole number"),
    "reasoning_effort": _TEXT,
    "service_tier": _TEXT,
    "verbosity": _TEXT,
    "safety_identifier": _TEXT,
    "prompt_cache_key": _TEXT,
    "response_format": _OBJECT,
    "logit_bias": _OBJECT,
    "audio": _OBJECT,
    "prediction": _OBJECT,
    "web_search_options": _OBJECT,
    "tool_choice": ((str, dict), "a text or an object"),
    "function_call": ((str, dict), "a text or an object"),
    "modalities": ((list,), "a list of texts"),
}
"""Fields of OpenAI's that go on as they are. A wrong type is refused here, in the same words for every provider."""
WHOLE_NUMBERS = (
    ("n", 1, MAX_CHOICES),
    ("max_tokens", 1, MAX_TOKENS),
    ("max_completion_tokens", 1, MAX_TOKENS),
    ("top_logprobs", 0, 1000),
)
NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


@dataclass(slots=True)
class Prompt:
    """A chat completion request. ``body`` is what goes on to the provider, unknown fields and all."""

    body: Body = field(repr=False)
    size: int
    """Bytes of the body as it came."""
    model: str
    stream: bool
    include_usage: bool
    choices: int
    end_user: str
    metadata: dict[str, str] = field(repr=False)

    def features(self) -> frozenset[Feature]:
        """Return what the request makes use of beside text."""
        used = {
            Feature.TOOLS: any(self.body.get(name) for name in ("tools", "functions", "web_search_options")),
            Feature.IMAGES: any("image" in kind for kind in _kinds_of_parts(self.body["messages"])),
            Feature.STREAMING: self.stream,
            Feature.N: self.choices > 1,
        }
        return frozenset(feature for feature, is_used in used.items() if is_used)


def parse(raw: bytes, max_depth: int = 64) -> Prompt:
    """Read a chat completion request. Raises `InvalidRequest`, naming the field."""
    try:
        body = parse_strict(raw, max_depth=max_depth)
    except StrictJsonError as error:
        raise InvalidRequest(str(error)) from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    _check_messages(body)
    _check_numbers(body)
    _check_lists(body)
    _check_types(body)
    stream = _boolean(body, "stream")
    return Prompt(
        body=body,
        size=len(raw),
        model=_model(body),
        stream=stream,
        include_usage=_include_usage(body, stream),
        choices=body.get("n") or 1,
        end_user=_text(body, "user", MAX_END_USER_CHARACTERS),
        metadata=_metadata(body),
    )


def _kinds_of_parts(messages: Sequence[Body]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part["type"] for part in content)


def _model(body: Body) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARACTERS:
        raise InvalidRequest(f"'model' must be a text of 1 to {MAX_MODEL_CHARACTERS} characters.", param="model")
    return model


def _check_messages(body: Body) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list with at least one message.", param="messages")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise InvalidRequest(f"'{where}' must be an object.", param=where)
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise InvalidRequest(f"'{where}.role' must be a text.", param=f"{where}.role")
        for name in ("name", "refusal", "tool_call_id"):
            if message.get(name) is not None and not isinstance(message[name], str):
                raise InvalidRequest(f"'{where}.{name}' must be a text.", param=f"{where}.{name}")
        _check_content(message.get("content"), f"{where}.content")
        calls = message.get("tool_calls")
        if calls is not None and (not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls)):
            raise InvalidRequest(f"'{where}.tool_calls' must be a list of objects.", param=f"{where}.tool_calls")


def _check_content(content: Any, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"'{where}' must be a text or a list of parts.", param=where)
    for number, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequest(f"'{where}[{number}]' must be an object with a type.", param=f"{where}[{number}]")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequest(f"'{where}[{number}].text' must be a text.", param=f"{where}[{number}].text")


def _check_numbers(body: Body) -> None:
    for name, least, most in WHOLE_NUMBERS:
        value = body.get(name)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise InvalidRequest(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    for name in NUMBERS:
        value = body.get(name)
        if value is not None and type(value) not in (int, float):
            raise InvalidRequest(f"'{name}' must be a number.", param=name)


def _check_lists(body: Body) -> None:
    for name in ("tools", "functions"):
        value = body.get(name)
        if value is not None and (not isinstance(value, list) or not all(isinstance(item, dict) for item in value)):
            raise InvalidRequest(f"'{name}' must be a list of objects.", param=name)
    stop = body.get("stop")
    if (
        stop is not None
        and not isinstance(stop, str)
        and not (isinstance(stop, list) and all(isinstance(item, str) for item in stop))
    ):
        raise InvalidRequest("'stop' must be a text or a list of texts.", param="stop")


def _check_types(body: Body) -> None:
    for name, value in body.items():
        if value is None or name not in PASSED_ON:
            continue
        types, wanted = PASSED_ON[name]
        if type(value) not in types:
            raise InvalidRequest(f"'{name}' must be {wanted}.", param=name)
    for number, tool in enumerate(body.get("tools") or ()):
        if not isinstance(tool.get("type"), _OPTIONAL_TEXT):
            where = f"tools[{number}].type"
            raise InvalidRequest(f"'{where}' must be a text.", param=where)
    response_format = body.get("response_format") or {}
    if not isinstance(response_format.get("type"), _OPTIONAL_TEXT):
        raise InvalidRequest("'response_format.type' must be a text.", param="response_format.type")
    if not all(isinstance(modality, str) for modality in body.get("modalities") or ()):
        raise InvalidRequest("'modalities' must be a list of texts.", param="modalities")


def _include_usage(body: Body, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise InvalidRequest("'stream_options' is only allowed with 'stream': true.", param="stream_options")
    if not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return _boolean(options, "include_usage", "stream_options.include_usage")


def _boolean(body: Mapping[str, Any], name: str, param: str | None = None) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{param or name}' must be true or false.", param=param or name)
    return value


def _text(body: Body, name: str, most: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidRequest(f"'{name}' must be a text of at most {most} characters.", param=name)
    return value


def _metadata(body: Body) -> dict[str, str]:
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_METADATA_ENTRIES:
        message = f"'metadata' must be an object with at most {MAX_METADATA_ENTRIES} entries."
        raise InvalidRequest(message, param="metadata")
    for key, item in value.items():
        if len(key) > MAX_METADATA_KEY or not isinstance(item, str) or len(item) > MAX_METADATA_VALUE:
            message = (
                f"Each entry of 'metadata' must be a text of at most {MAX_METADATA_VALUE} characters "
                f"under a key of at most {MAX_METADATA_KEY}."
            )
            raise InvalidRequest(message, param="metadata")
    return dict(value)
