from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from apps.gateway.providers.base import Chunk, Endpoint, Fault, Reply, TokenBound, UpstreamError, Usage
from apps.gateway.providers.openai import OpenAIAdapter
from apps.gateway.providers.registry import UnknownProvider, adapter_for
from tests.mock_upstream import GARBAGE, Behaviour, MockUpstream
from tests.providers.calling import chat, endpoint, read, read_events, run

ADAPTER = OpenAIAdapter()
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def complete(upstream: MockUpstream, **fields: Any) -> Reply:
    request = ADAPTER.build_request(endpoint(upstream.base_url, "sk-test"), "gpt-4o-mini", chat(**fields))
    _, body = run(lambda transport: read(transport, request))
    return ADAPTER.parse_reply(body)


def stream(upstream: MockUpstream, **fields: Any) -> list[Chunk]:
    body = chat(**fields, stream=True)
    request = ADAPTER.build_request(endpoint(upstream.base_url, "sk-test"), "gpt-4o-mini", body)
    parser = ADAPTER.chunk_parser()
    events = run(lambda transport: read_events(transport, request))
    return [chunk for event in events for chunk in parser.parse(event)]


def sent(**fields: Any) -> Any:
    return orjson.loads(ADAPTER.build_request(endpoint("https://x.example/v1"), "model-b", chat(**fields)).body)


# Requests


def test_a_request_goes_to_the_base_url_with_the_credential(upstream: MockUpstream) -> None:
    complete(upstream)
    [call] = upstream.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == "Bearer sk-test"
    assert call.headers["content-type"] == "application/json"


def test_a_base_url_may_end_in_a_slash() -> None:
    request = ADAPTER.build_request(endpoint("https://x.example/v1/"), "m", chat())
    assert request.url == "https://x.example/v1/chat/completions"


def test_without_a_secret_no_credential_is_sent() -> None:
    assert "authorization" not in ADAPTER.build_request(endpoint("https://x.example/v1"), "m", chat()).headers


def test_neither_the_endpoint_nor_the_request_shows_its_secret() -> None:
    place = Endpoint("openai", "https://x.example/v1", "sk-secret")
    assert "sk-secret" not in f"{place!r}{ADAPTER.build_request(place, 'm', chat())!r}"


def test_the_model_is_replaced_and_everything_else_kept() -> None:
    assert sent(some_new_field={"a": [1]}) == {**chat(some_new_field={"a": [1]}), "model": "model-b"}


def test_the_given_body_stays_as_it_is() -> None:
    body = chat(stream=True, stream_options={"include_usage": False})
    ADAPTER.build_request(endpoint("https://x.example/v1"), "model-b", body)
    assert body == chat(stream=True, stream_options={"include_usage": False})


@pytest.mark.parametrize("given", [None, {}, {"include_usage": False}])
def test_a_stream_always_reports_its_usage(given: object) -> None:
    assert sent(stream=True, stream_options=given)["stream_options"] == {"include_usage": True}


def test_other_stream_options_are_kept() -> None:
    options = sent(stream=True, stream_options={"include_obfuscation": False})["stream_options"]
    assert options == {"include_obfuscation": False, "include_usage": True}


def test_a_whole_answer_asks_for_no_stream_options() -> None:
    assert "stream_options" not in sent(stream=False)


# Whole answers


def test_a_whole_answer_comes_with_its_usage(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(text="three words here", input_tokens=50, cached_tokens=20))
    reply = complete(upstream)
    assert reply.body["choices"][0]["message"]["content"] == "three words here"
    assert reply.usage == Usage(input_tokens=50, output_tokens=3, cache_read_tokens=20)


def test_an_answer_without_usage_has_none(upstream: MockUpstream) -> None:
    assert complete(upstream, text="mock:no_usage=1").usage is None


def test_tool_calls_logprobs_and_several_choices_come_through(upstream: MockUpstream) -> None:
    called = complete(upstream, text="mock:tool=f").body["choices"][0]
    assert called["message"]["tool_calls"][0]["function"]["name"] == "f"
    several = complete(upstream, n=3, logprobs=True).body["choices"]
    assert [choice["index"] for choice in several] == [0, 1, 2]
    assert several[0]["logprobs"]["content"]


@pytest.mark.parametrize("body", [*GARBAGE.values(), b'{"choices": [1]}', b'{"choices": [{}]}', b"{}"])
def test_an_answer_that_is_no_completion_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        ADAPTER.parse_reply(body)
    assert caught.value.fault is Fault.GARBAGE


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**10},
        {"prompt_tokens": 1.0, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": "1", "completion_tokens": 1},
        {"prompt_tokens": 1},
        {"completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}},
        [],
        7,
    ],
)
def test_usage_that_cannot_be_true_is_garbage_whole_and_streamed(usage: object) -> None:
    data = orjson.dumps({"choices": [], "usage": usage})
    for parse in (ADAPTER.parse_reply, ADAPTER.chunk_parser().parse):
        with pytest.raises(UpstreamError) as caught:
            parse(data)
        assert caught.value.fault is Fault.GARBAGE


MALFORMED: list[Any] = [
    {"content": 7},
    {"content": {"text": "x"}},
    {"refusal": ["x"]},
    {"tool_calls": {}},
    {"tool_calls": ["x"]},
    {"tool_calls": [{"index": []}]},
    {"tool_calls": [{"function": "x"}]},
    {"tool_calls": [{"function": {"name": 1}}]},
    {"tool_calls": [{"function": {"arguments": {}}}]},
    [],
    "text",
]


@pytest.mark.parametrize("malformed", [*MALFORMED, {"content": ["x"]}, {"content": [{"type": "text"}]}, None])
def test_a_message_that_could_not_be_inspected_is_garbage(malformed: object) -> None:
    with pytest.raises(UpstreamError):
        ADAPTER.parse_reply(orjson.dumps({"choices": [{"index": 0, "message": malformed}]}))


@pytest.mark.parametrize("malformed", [*MALFORMED, {"content": [{"type": "text", "text": "x"}]}])
def test_a_delta_that_could_not_be_inspected_is_garbage(malformed: object) -> None:
    with pytest.raises(UpstreamError):
        ADAPTER.chunk_parser().parse(orjson.dumps({"choices": [{"index": 0, "delta": malformed}]}))


@pytest.mark.parametrize("index", ["0", None, [], 1.0, True])
def test_a_choice_without_a_proper_index_is_garbage(index: object) -> None:
    choice = {"index": index, "delta": {}, "message": {"content": "x"}}
    for parse in (ADAPTER.parse_reply, ADAPTER.chunk_parser().parse):
        with pytest.raises(UpstreamError):
            parse(orjson.dumps({"choices": [choice]}))


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x"},
        {"content": None, "refusal": "no", "tool_calls": None},
        {"content": [{"type": "text", "text": "x"}, {"type": "thinking", "thinking": []}]},
        {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "n", "input": ""}}]},
        {"audio": {"id": "a"}, "annotations": []},
    ],
)
def test_a_message_of_a_known_shape_comes_through(message: dict[str, Any]) -> None:
    reply = ADAPTER.parse_reply(orjson.dumps({"choices": [{"index": 0, "message": message}]}))
    assert reply.body["choices"][0]["message"] == message


# Streams


def test_a_stream_gives_its_text_its_usage_and_its_end(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(text="one two three", input_tokens=9))
    chunks = stream(upstream)
    text = "".join(choice["delta"].get("content", "") for c in chunks for choice in c.body.get("choices", ()))
    assert text == "one two three"
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].data == b""
    assert [chunk.usage for chunk in chunks if chunk.usage_only] == [Usage(9, 3)]


def test_a_chunk_carries_the_bytes_of_what_was_understood_and_nothing_else() -> None:
    [chunk] = ADAPTER.chunk_parser().parse(b'{"choices": [{"x": 1}],\n "choices": [{"x": 2}]}')
    assert chunk.data == b'{"choices":[{"x":2}]}'
    assert orjson.loads(chunk.data) == chunk.body


def test_usage_may_come_with_choices() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    [chunk] = ADAPTER.chunk_parser().parse(orjson.dumps({"choices": [{"index": 0, "delta": {}}], "usage": usage}))
    assert chunk.usage == Usage(4, 2)
    assert not chunk.usage_only


def test_usage_may_come_without_any_choices_field() -> None:
    [chunk] = ADAPTER.chunk_parser().parse(b'{"usage": {"prompt_tokens": 4, "completion_tokens": 2}}')
    assert chunk.usage_only


def test_a_chunk_without_choices_or_usage_is_passed_on() -> None:
    [chunk] = ADAPTER.chunk_parser().parse(b'{"choices": [], "prompt_filter_results": [1]}')
    assert not chunk.usage_only
    assert chunk.data


def test_empty_events_and_what_follows_the_end_give_no_chunks() -> None:
    parser = ADAPTER.chunk_parser()
    assert not parser.parse(b"")
    assert parser.parse(b"[DONE]")
    assert not parser.parse(b'{"choices": []}')


def test_an_error_inside_a_stream_ends_it_without_the_providers_words(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(words=5, after=2, error_event=True, message="secret words", code="overloaded"))
    with pytest.raises(UpstreamError) as caught:
        stream(upstream)
    assert caught.value.fault is Fault.SERVER
    assert caught.value.details["code"] == "overloaded"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("event", [*filter(None, GARBAGE.values()), b"{}", b'{"choices": null}', b"[DONE"])
def test_an_event_that_is_no_chunk_is_garbage(event: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        ADAPTER.chunk_parser().parse(event)
    assert caught.value.fault is Fault.GARBAGE


# Errors


def error_of(upstream: MockUpstream, behaviour: Behaviour) -> UpstreamError:
    upstream.script(behaviour)
    request = ADAPTER.build_request(endpoint(upstream.base_url, "sk-test"), "gpt-4o-mini", chat())
    response, body = run(lambda transport: read(transport, request))
    return ADAPTER.map_error(response.status, response.headers, body)


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429])
def test_a_refusal_keeps_its_status_its_message_and_its_code(upstream: MockUpstream, status: int) -> None:
    error = error_of(upstream, Behaviour(status=status, message="Too much.", code="too_much"))
    assert (error.fault, error.status, error.message) == (Fault.REFUSED, status, "Too much.")
    assert error.details == {"type": "invalid_request_error", "code": "too_much"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_shows_nothing_that_the_provider_said(upstream: MockUpstream, status: int) -> None:
    error = error_of(upstream, Behaviour(status=status, message="Incorrect API key: sk-abc***xyz", code="bad"))
    assert (error.fault, error.status, error.details) == (Fault.CREDENTIAL, status, {})
    assert "sk-" not in error.message


@pytest.mark.parametrize("status", [307, 402, 408, 409, 418, 500, 502, 503, 529])
def test_every_other_status_is_the_providers_failure(upstream: MockUpstream, status: int) -> None:
    error = error_of(upstream, Behaviour(status=status, message="stack trace", retry_after="3"))
    assert (error.fault, error.status, error.retry_after) == (Fault.SERVER, status, 3.0)
    assert "stack" not in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "nested"}}, "nested"),
        ({"error": "plain"}, "plain"),
        ({"object": "error", "message": "flat", "code": 400}, "flat"),
        ({"error": None}, "The provider refused the request with status 400."),
        ({"error": {"message": 7}}, "The provider refused the request with status 400."),
        ([], "The provider refused the request with status 400."),
    ],
)
def test_a_refusals_message_is_found_wherever_providers_put_it(body: object, message: str) -> None:
    assert ADAPTER.map_error(400, {}, orjson.dumps(body)).message == message


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF1234567890",
        "sk-abc***********xyz",
        "Bearer hunter2hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "AKIAIOSFODNN7EXAMPLE",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_what_looks_like_a_key_is_taken_out_of_a_refusal(secret: str) -> None:
    error = {"message": f"Bad value {secret}, sorry.", "param": secret, "code": secret}
    mapped = ADAPTER.map_error(400, {}, orjson.dumps({"error": error}))
    assert secret.removeprefix("Bearer ") not in f"{mapped.message}{mapped.details}"
    assert mapped.message.startswith("Bad value [redacted]")
    assert mapped.message.endswith("sorry.")


def test_a_refusals_message_is_one_short_line() -> None:
    mapped = ADAPTER.map_error(400, {}, orjson.dumps({"error": {"message": "a\r\n\x00\x1b[31mb " + "x " * 900}}))
    assert mapped.message.startswith("a [31mb x")
    assert len(mapped.message) <= 500
    assert mapped.message.isprintable()


@pytest.mark.parametrize("text", ["a" * 200_000, "eyJ-" * 50_000, "sk-" * 50_000, "bearer " * 20_000])
def test_a_hostile_message_is_read_in_the_time_of_any_other(text: str) -> None:
    assert len(ADAPTER.map_error(400, {}, orjson.dumps({"error": {"message": text}})).message) <= 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_retry_after_is_read_as_seconds(value: str, seconds: float | None) -> None:
    assert ADAPTER.map_error(429, {"retry-after": value}, b"").retry_after == seconds


def test_retry_after_is_read_as_a_date() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    seconds = ADAPTER.map_error(429, {"retry-after": format_datetime(ahead, usegmt=True)}, b"").retry_after
    assert seconds is not None
    assert 0 < seconds <= 3600
    past = ADAPTER.map_error(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"").retry_after
    assert past == 0.0


# Bounds


def bound(context_window: int | None = None, **fields: Any) -> TokenBound:
    body = chat(**fields)
    return ADAPTER.bound("gpt-4o-mini", body, len(orjson.dumps(body)), context_window)


def parts(*kinds: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: "x"} for kind in kinds]}]


def test_input_is_bounded_by_the_bytes_that_are_sent() -> None:
    text = "日本語のテキスト" * 100
    found = bound(text=text, max_tokens=5).input_tokens
    assert found is not None
    assert len(text.encode()) <= found < len(text.encode()) + 250


def test_every_message_adds_to_the_bound() -> None:
    one = ADAPTER.bound("m", {"messages": parts("text")}, 100, None).input_tokens
    two = ADAPTER.bound("m", {"messages": parts("text") * 2}, 100, None).input_tokens
    assert one is not None
    assert two is not None
    assert two > one


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": parts("text", "image_url")},
        {"messages": parts("file")},
        {"messages": parts("something_new")},
        {"messages": [{"role": "user", "content": {"type": "text"}}]},
        {"messages": ["text"]},
    ],
)
def test_what_is_not_text_is_bounded_by_the_context_window_alone(fields: dict[str, Any]) -> None:
    unbounded = bound(**fields, max_tokens=5)
    assert unbounded.input_tokens is None
    assert unbounded.why
    assert bound(128_000, **fields, max_tokens=5) == TokenBound(128_000, 5)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": parts("input_audio")},
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        {"web_search_options": {}},
        {"tools": [FUNCTION, {"type": "web_search"}]},
        {"tools": [{}]},
    ],
)
def test_what_is_not_charged_as_text_tokens_is_never_bounded(fields: dict[str, Any]) -> None:
    found = bound(128_000, **fields, max_tokens=5)
    assert found.input_tokens is None
    assert "cannot be bounded" in found.why


def test_functions_and_text_parts_are_bounded_by_bytes() -> None:
    custom = {"type": "custom", "custom": {"name": "c"}}
    assert bound(messages=parts("text", "refusal"), tools=[FUNCTION, custom]).input_tokens is not None


@pytest.mark.parametrize(
    ("fields", "window", "output"),
    [
        ({"max_tokens": 10}, None, 10),
        ({"max_completion_tokens": 10}, 1000, 10),
        ({"max_completion_tokens": 10, "max_tokens": 20}, None, 20),
        ({"max_completion_tokens": 10, "n": 3}, None, 30),
        ({"max_tokens": None, "n": None}, 1000, 1000),
        ({"n": 4}, 1000, 4000),
        ({}, None, None),
        ({"max_tokens": -5}, 1000, None),
        ({"max_tokens": 1.5}, 1000, None),
        ({"max_tokens": True}, 1000, None),
        ({"max_tokens": 10, "n": 0}, 1000, None),
        ({"max_tokens": 10, "n": "2"}, 1000, None),
        ({"max_tokens": 10, "modalities": ["text"]}, None, 10),
        ({"max_tokens": 10, "modalities": ["text", "audio"]}, 1000, None),
    ],
)
def test_output_is_bounded_by_its_limit_or_the_context_window_for_each_choice(
    fields: dict[str, Any], window: int | None, output: int | None
) -> None:
    found = bound(window, **fields)
    assert found.output_tokens == output
    assert bool(found.why) is (output is None)


# Estimates


def test_an_estimate_counts_the_texts_and_what_was_produced() -> None:
    short, long = (ADAPTER.estimate(chat(text), "") for text in ("four", "four" * 100))
    assert long.input_tokens - short.input_tokens == 99
    assert ADAPTER.estimate(chat(), "eight ch").output_tokens == 2
    assert ADAPTER.estimate(chat(), "日本語").output_tokens == 3
    assert ADAPTER.estimate(chat(), "").output_tokens == 0


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [FUNCTION]},
        {"messages": [*chat()["messages"], *parts("text", "image_url")]},
        {"messages": [*chat()["messages"], {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}]},
    ],
)
def test_everything_that_is_sent_adds_to_the_estimate(more: dict[str, Any]) -> None:
    assert ADAPTER.expected("m", chat(**more)).input_tokens > ADAPTER.expected("m", chat()).input_tokens


def test_an_estimate_never_exceeds_the_bound_of_texts() -> None:
    body = chat("some text 日本語 " * 50, tools=[FUNCTION])
    most = ADAPTER.bound("m", body, len(orjson.dumps(body)), None).input_tokens
    assert most is not None
    assert ADAPTER.expected("m", body).input_tokens <= most


@pytest.mark.parametrize(("fields", "tokens"), [({"max_tokens": 7}, 7), ({"max_tokens": 7, "n": 2}, 14), ({}, 0)])
def test_an_expected_answer_is_as_long_as_its_limit_if_there_is_one(fields: dict[str, Any], tokens: int) -> None:
    assert ADAPTER.expected("m", chat(**fields)).output_tokens == tokens


# Embeddings


def test_embeddings_come_with_a_usage_that_has_no_output(upstream: MockUpstream) -> None:
    place = endpoint(upstream.base_url, "sk-test")
    request = ADAPTER.build_embeddings_request(place, "embed-small", {"model": "x", "input": ["a b", "c"]})
    _, body = run(lambda transport: read(transport, request))
    reply = ADAPTER.parse_embeddings_reply(body)
    assert upstream.calls[0].path == "/v1/embeddings"
    assert upstream.calls[0].json["model"] == "embed-small"
    assert len(reply.body["data"]) == 2
    assert reply.usage == Usage(3, 0)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": 1}', b'{"data": [1]}', b'{"data": [], "usage": 1}'])
def test_an_answer_that_is_no_list_of_embeddings_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        ADAPTER.parse_embeddings_reply(body)
    assert caught.value.fault is Fault.GARBAGE


# The registry


@pytest.mark.parametrize("provider", ["openai", "openai_compatible", "simulated"])
def test_a_known_provider_has_one_adapter(provider: str) -> None:
    assert adapter_for(provider) is adapter_for(provider)


def test_an_unknown_provider_has_none() -> None:
    with pytest.raises(UnknownProvider):
        adapter_for("nobody")
