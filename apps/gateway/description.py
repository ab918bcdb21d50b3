"""What the OpenAPI document says of inference: the request as `apps.gateway.prompt` reads it, and the answers.

The shapes are OpenAI's ("Create chat completion" in its API reference), as far as the gateway depends on them. What is
not described goes through as it came, in both directions: every object may have more fields.
"""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from apps.gateway import prompt

Schema = dict[str, Any]

_KIND_OF: dict[type, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    str: {"type": "string"},
    dict: {"type": "object", "additionalProperties": True},
    list: {"type": "array", "items": {"type": "string"}},
}


def _text(most: int | None = None, **more: Any) -> Schema:
    return {"type": "string", **({"maxLength": most} if most is not None else {}), **more}


def _object(properties: dict[str, Schema], required: tuple[str, ...] = (), description: str = "") -> Schema:
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": True}
    made |= {"required": list(required)} if required else {}
    return made | ({"description": description} if description else {})


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _nullable(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


def _passed_on(types: tuple[type, ...]) -> Schema:
    """Return the schema of a field of which only the type is looked at."""
    kinds: list[Schema] = [_KIND_OF[kind] for kind in types]
    return kinds[0] if len(kinds) == 1 else {"oneOf": kinds}


_PART = _object(
    {"type": _text(description="text, image_url, input_audio, file, ..."), "text": _text()},
    required=("type",),
    description="'text' is needed in a part of the type text. Images may be given by address or as a data URL.",
)
_TOOL_CALLS = _list(_object({"id": _text(), "type": _text()}))
_MESSAGE = _object(
    {
        "role": _text(minLength=1, description="system, developer, user, assistant or tool."),
        "content": _nullable({"oneOf": [_text(), _list(_PART)]}),
        "name": _nullable(_text()),
        "refusal": _nullable(_text()),
        "tool_call_id": _nullable(_text()),
        "tool_calls": _nullable(_TOOL_CALLS),
    },
    required=("role",),
)
_STREAM_OPTIONS = _object(
    {"include_usage": _nullable({"type": "boolean", "description": "Whether a last chunk tells the usage."})},
    description="Allowed with 'stream': true alone.",
)
_METADATA = {
    "type": "object",
    "maxProperties": prompt.MAX_METADATA_ENTRIES,
    "additionalProperties": _text(prompt.MAX_METADATA_VALUE),
    "description": (
        "Labels that the record keeps and usage is summed by. A key has at most "
        f"{prompt.MAX_METADATA_KEY} characters. They are not sent to the provider unless 'store' is true."
    ),
}

CHAT_REQUEST = _object(
    {
        "model": _text(prompt.MAX_MODEL_CHARACTERS, minLength=1, description="A name that GET /v1/models lists."),
        "messages": _list(_MESSAGE, minItems=1),
        "stream": _nullable({"type": "boolean", "description": "Whether the answer comes as server-sent events."}),
        "stream_options": _nullable(_STREAM_OPTIONS),
        "user": _nullable(
            _text(prompt.MAX_END_USER_CHARACTERS, description="The end user, for the record and for policies.")
        ),
        "metadata": _nullable(_METADATA),
        "stop": _nullable({"oneOf": [_text(), _list(_text())]}),
        "tools": _nullable(_list(_object({"type": _nullable(_text())}))),
        "functions": _nullable(_list(_object({}))),
        **{
            name: _nullable({"type": "integer", "minimum": least, "maximum": most})
            for name, least, most in prompt.WHOLE_NUMBERS
        },
        **{name: _nullable({"type": "number"}) for name in prompt.NUMBERS},
        **{name: _nullable(_passed_on(types)) for name, (types, _) in prompt.PASSED_ON.items()},
    },
    required=("model", "messages"),
    description="OpenAI's chat completion request; unknown fields go on to the provider as they are.",
)

_COUNT: Schema = {"type": "integer", "minimum": 0}
_USAGE = _object(
    {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
    required=("prompt_tokens", "completion_tokens"),
)
_ANSWERED = _object({"role": _text(), "content": _nullable(_text()), "tool_calls": _nullable(_TOOL_CALLS)})
_INDEX = {"index": {"type": "integer"}, "finish_reason": _nullable(_text()), "logprobs": _nullable({"type": "object"})}
_HEAD = {"id": _text(), "created": {"type": "integer", "description": "Unix time."}, "model": _text()}

CHAT_COMPLETION = _object(
    {
        **_HEAD,
        "object": {"type": "string", "enum": ["chat.completion"]},
        "choices": _list(_object({**_INDEX, "message": _ANSWERED}, required=("index", "message", "finish_reason"))),
        "usage": _nullable(_USAGE),
    },
    required=("id", "choices"),
)
CHAT_CHUNK = _object(
    {
        **_HEAD,
        "object": {"type": "string", "enum": ["chat.completion.chunk"]},
        "choices": _list(_object({**_INDEX, "delta": _ANSWERED}, required=("index", "delta"))),
        "usage": _nullable(_USAGE),
    },
    required=("id", "choices"),
    description=(
        "What stands behind 'data: ' in each event but the last, which is 'data: [DONE]'. The last chunk with "
        "'usage' has no choices and comes only if it was asked for. A stream that fails midway ends with an event "
        "that is an error in the API's shape."
    ),
)
MODEL = _object(
    {"id": _text(), "object": {"type": "string", "enum": ["model"]}, "created": _COUNT, "owned_by": _text()},
    required=("id", "object", "created", "owned_by"),
)
MODEL_LIST = _object(
    {"object": {"type": "string", "enum": ["list"]}, "data": _list(MODEL)}, required=("object", "data")
)

_REFUSALS = {
    400: "The request is wrong, or a guardrail blocks it.",
    401: "No valid API key.",
    403: "A policy does not allow it.",
    404: "No such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "A rate limit or a budget is used up; Retry-After says when to try again.",
    502: "The provider failed.",
    503: "The gateway cannot keep its promises right now; Retry-After says when to try again.",
    504: "The provider did not answer in time.",
}


def _refusals(*statuses: int) -> dict[Any, Any]:
    return {status: OpenApiResponse({"type": "object"}, description=_REFUSALS[status]) for status in statuses}


CHAT_ANSWERS: dict[Any, Any] = {
    (200, "application/json"): OpenApiResponse(CHAT_COMPLETION, description="The answer, whole or as a stream."),
    (200, "text/event-stream"): OpenApiResponse(CHAT_CHUNK, description="The answer, whole or as a stream."),
    **_refusals(*_REFUSALS),
}
MODEL_ANSWERS: dict[Any, Any] = {
    200: OpenApiResponse(MODEL, description="The model."),
    **_refusals(401, 403, 404, 503),
}
MODEL_LIST_ANSWERS: dict[Any, Any] = {
    200: OpenApiResponse(MODEL_LIST, description="The models that exist and that the caller's policies allow."),
    **_refusals(401, 403, 503),
}


def _header(name: str, description: str, statuses: list[int], kind: type = str) -> OpenApiParameter:
    return OpenApiParameter(
        name, kind, OpenApiParameter.HEADER, description=description, response=list(statuses), required=False
    )


_LIMITED = [200, 429]
CHAT_HEADERS = [
    _header("x-lcp-cost-usd", "What it cost. Not with a stream: its record has it.", [200]),
    _header("x-lcp-provider", "Who answered, or was asked last.", [200, 502, 504]),
    _header("x-ratelimit-limit", "The tightest of the caller's limits, whatever it counts.", _LIMITED, int),
    _header("x-ratelimit-remaining", "What it still allows.", _LIMITED, int),
    _header("x-ratelimit-reset", "In how many seconds all of it is there again.", _LIMITED, int),
    *(
        header
        for kind in ("requests", "tokens")
        for header in (
            _header(f"x-ratelimit-limit-{kind}", f"The tightest limit on {kind}.", _LIMITED, int),
            _header(f"x-ratelimit-remaining-{kind}", f"How many {kind} it still allows.", _LIMITED, int),
            _header(f"x-ratelimit-reset-{kind}", "When all of it is there again, such as 6.500s.", _LIMITED),
        )
    ),
    _header("retry-after", "In how many seconds to try again.", [429, 503], int),
]
