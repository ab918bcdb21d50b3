import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from apps.gateway.providers.base import Chunk, Endpoint, Fault, Reply, TokenBound, UpstreamError, Usage
from apps.gateway.providers.simulated import SimulatedAdapter
from apps.gateway.simulated import is_simulated_model, simulated_models
from apps.gateway.transport import Timeouts, Transport
from tests.providers.calling import chat, read, read_events, run

ADAPTER = SimulatedAdapter()
ENDPOINT = Endpoint("simulated", "https://ignored.example")
FUNCTIONS = [{"type": "function", "function": {"name": name}} for name in ("first", "second")]


def complete(model: str, text: str = "hello big world", **fields: Any) -> Reply:
    request = ADAPTER.build_request(ENDPOINT, model, chat(text, **fields))
    response, body = run(lambda transport: read(transport, request))
    if response.status != 200:
        raise ADAPTER.map_error(response.status, response.headers, body)
    return ADAPTER.parse_reply(body)


def stream(model: str, text: str = "hello big world", **fields: Any) -> list[Chunk]:
    request = ADAPTER.build_request(ENDPOINT, model, chat(text, stream=True, **fields))
    parser = ADAPTER.chunk_parser()
    events = run(lambda transport: read_events(transport, request))
    return [chunk for event in events for chunk in parser.parse(event)]


def fault_of(call: Callable[[], object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        call()
    return caught.value


def message(reply: Reply) -> Any:
    return reply.body["choices"][0]["message"]


def deltas(chunks: list[Chunk], index: int = 0) -> list[Any]:
    choices = [choice for chunk in chunks for choice in chunk.body.get("choices", ())]
    return [choice["delta"] for choice in choices if choice["index"] == index]


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(delta.get("content") or "" for delta in deltas(chunks, index))


LONG_GAP = pytest.param("x" + " " * 1_000_000, id="a long gap")
"""In time that grows with its square nobody would wait for it."""


def reported(chunks: list[Chunk]) -> list[Usage]:
    return [chunk.usage for chunk in chunks if chunk.usage]


def test_without_permission_nothing_is_simulated() -> None:
    request = ADAPTER.build_request(ENDPOINT, "sim-echo", chat())
    assert fault_of(lambda: run(lambda t: t.send(request), simulated=False)).fault is Fault.ADDRESS


@pytest.mark.parametrize("text", ["hello big world", "  spaced\n\nout  ", "日本語 テキスト", "x", " ", "", LONG_GAP])
def test_echo_answers_with_the_last_user_text_exactly(text: str) -> None:
    assert message(complete("sim-echo", text))["content"] == text
    assert text_of(stream("sim-echo", text)) == text


def test_echo_answers_with_the_last_user_message_and_counts_the_words_of_all() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "not this"},
        {"role": "user", "content": [{"type": "text", "text": "but"}, {"type": "text", "text": "this one"}]},
        {"role": "assistant", "content": None},
    ]
    reply = complete("sim-echo", messages=messages)
    assert message(reply)["content"] == "but\nthis one"
    assert reply.usage == Usage(7, 3)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_its_limit(limit: str) -> None:
    reply = complete("sim-echo", "one two three four", **{limit: 2})
    assert message(reply)["content"] == "one two"
    assert reply.body["choices"][0]["finish_reason"] == "length"
    assert reply.usage == Usage(4, 2)


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 1}, {"n": 3}])
def test_usage_is_reported_exactly_as_the_model_is_named(fields: dict[str, Any]) -> None:
    assert complete("sim-usage-123-456", **fields).usage == Usage(123, 456)
    assert reported(stream("sim-usage-123-456", **fields)) == [Usage(123, 456)]


def test_slow_waits_no_longer_than_the_transport_does() -> None:
    assert message(complete("sim-slow-1", "late"))["content"] == "late"
    request = ADAPTER.build_request(ENDPOINT, "sim-slow-60000", chat())
    late = fault_of(lambda: run(lambda t: t.send(request), timeouts=Timeouts(first_byte=0.05)))
    assert late.fault is Fault.TIMEOUT


def test_stream_gives_so_many_content_chunks_or_words() -> None:
    chunks = stream("sim-stream-5")
    assert [delta["content"] for delta in deltas(chunks) if delta.get("content")] == [
        "word0",
        " word1",
        " word2",
        " word3",
        " word4",
    ]
    assert chunks[-1].done
    assert message(complete("sim-stream-5"))["content"] == text_of(chunks)
    assert complete("sim-stream-5").usage == Usage(3, 5) == reported(chunks)[0]


def test_a_stream_ends_when_its_whole_time_is_over() -> None:
    request = ADAPTER.build_request(ENDPOINT, "sim-stream-100000", chat(stream=True))
    timeouts = Timeouts(total=0.1)
    assert fault_of(lambda: run(lambda t: read_events(t, request), timeouts=timeouts)).fault is Fault.TIMEOUT


@pytest.mark.parametrize(
    ("status", "fault"), [(400, Fault.REFUSED), (401, Fault.CREDENTIAL), (429, Fault.REFUSED), (503, Fault.SERVER)]
)
@pytest.mark.parametrize("call", [complete, stream])
def test_an_error_has_its_status(status: int, fault: Fault, call: Callable[[str], object]) -> None:
    request = ADAPTER.build_request(ENDPOINT, f"sim-error-{status}", chat(stream=call is stream))
    response, body = run(lambda transport: read(transport, request))
    error = ADAPTER.map_error(response.status, response.headers, body)
    assert (error.status, error.fault) == (status, fault)


def test_broken_breaks_after_so_many_chunks_and_at_once_when_not_streamed() -> None:
    async def call(transport: Transport) -> list[bytes]:
        request = ADAPTER.build_request(ENDPOINT, "sim-broken-3", chat(stream=True))
        events = (await transport.send(request)).events()
        received = [await anext(events) for _ in range(4)]
        with pytest.raises(UpstreamError) as caught:
            await anext(events)
        assert caught.value.fault is Fault.BROKEN
        return received

    assert [orjson.loads(e)["choices"][0]["delta"]["content"] for e in run(call)] == ["", "word0", " word1", " word2"]
    assert fault_of(lambda: complete("sim-broken-3")).fault is Fault.BROKEN


def test_a_dropped_stream_gives_nothing_more() -> None:
    async def call(transport: Transport) -> None:
        response = await transport.send(ADAPTER.build_request(ENDPOINT, "sim-stream-50", chat(stream=True)))
        events = response.events()
        await anext(events)
        await response.close()
        await response.close()
        await anext(events)

    assert fault_of(lambda: run(call)).fault is Fault.BROKEN


@pytest.mark.parametrize(
    ("choice", "name"),
    [("required", "first"), ({"type": "function", "function": {"name": "second"}}, "second")],
)
def test_a_forced_tool_is_called_with_no_arguments(choice: object, name: str) -> None:
    reply = complete("sim-echo", tools=FUNCTIONS, tool_choice=choice)
    [call] = message(reply)["tool_calls"]
    assert call["function"] == {"name": name, "arguments": "{}"}
    assert reply.body["choices"][0]["finish_reason"] == "tool_calls"
    pieces = [
        d["tool_calls"][0]["function"]
        for d in deltas(stream("sim-echo", tools=FUNCTIONS, tool_choice=choice))
        if "tool_calls" in d
    ]
    assert pieces == [{"name": name, "arguments": ""}, {"arguments": "{}"}]


@pytest.mark.parametrize("choice", ["auto", "none", None, {"type": "function", "function": {"name": "unknown"}}])
def test_a_tool_that_is_not_forced_is_not_called(choice: object) -> None:
    assert message(complete("sim-echo", tools=FUNCTIONS, tool_choice=choice))["content"] == "hello big world"


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_json_answer_is_json(kind: str) -> None:
    wrapped = message(complete("sim-echo", 'say "hi"', response_format={"type": kind}))["content"]
    assert orjson.loads(wrapped) == {"echo": 'say "hi"'}
    kept = message(complete("sim-echo", '{"a":  1}', response_format={"type": kind}))["content"]
    assert kept == '{"a":  1}'


def test_several_choices_are_answered_and_counted() -> None:
    reply = complete("sim-echo", "a b", n=3)
    assert [choice["message"]["content"] for choice in reply.body["choices"]] == ["a b"] * 3
    assert reply.usage == Usage(2, 6)
    chunks = stream("sim-echo", "a b", n=2)
    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("a b", "a b")
    assert reported(chunks) == [Usage(2, 4)]


@pytest.mark.parametrize("n", [0, -1, 129, "2", True])
def test_a_wrong_number_of_choices_is_refused(n: object) -> None:
    assert fault_of(lambda: complete("sim-echo", n=n)).status == 400


@pytest.mark.parametrize(
    "model",
    [
        "sim-nothing",
        "sim-echo-1",
        "sim-usage-1",
        "sim-usage-1-2-3",
        "sim-usage--1-2",
        "sim-usage-1000000001-1",
        "sim-usage-1-99999999999999",
        "sim-slow-600001",
        "sim-stream-100001",
        "sim-error-399",
        "sim-error-600",
        "sim-broken-x",
        "sim-slow-٣",
        "sim-echo\n",
        "gpt-4o-mini",
        "",
    ],
)
def test_an_unknown_model_is_not_found(model: str) -> None:
    assert not is_simulated_model(model)
    assert fault_of(lambda: complete(model)).status == 404


def test_every_listed_model_is_one() -> None:
    assert all(is_simulated_model(model) for model in simulated_models())


@pytest.mark.parametrize(
    ("model", "fields", "tokens"),
    [
        ("sim-usage-10-20", {}, (10, 20)),
        ("sim-usage-10-20", {"n": 3}, (10, 60)),
        ("sim-usage-10-20", {"max_tokens": 5, "n": 2}, (10, 10)),
        ("sim-echo", {}, (3, 3)),
        ("sim-echo", {"n": 2}, (3, 6)),
        ("sim-echo", {"max_completion_tokens": 100}, (3, 100)),
        ("sim-slow-5", {}, (3, 3)),
        ("sim-stream-7", {}, (3, 7)),
        ("sim-stream-0", {}, (3, 1)),
        ("sim-broken-7", {}, (3, 7)),
        ("sim-unknown", {}, (0, 0)),
    ],
)
def test_the_bound_is_what_would_be_reported_at_most(
    model: str, fields: dict[str, Any], tokens: tuple[int, int]
) -> None:
    body = chat("hello big world", **fields)
    assert ADAPTER.bound(model, body, len(orjson.dumps(body)), None) == TokenBound(*tokens)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"max_tokens": 1},
        {"max_tokens": 9},
        {"response_format": {"type": "json_object"}},
        {"tools": FUNCTIONS, "tool_choice": "required"},
    ],
)
@pytest.mark.parametrize("model", ["sim-echo", "sim-stream-4", "sim-slow-0"])
def test_no_answer_uses_more_than_its_bound(model: str, fields: dict[str, Any]) -> None:
    most = ADAPTER.bound(model, chat("hello big world", **fields), 0, None)
    for usage in (complete(model, **fields).usage, reported(stream(model, **fields))[0]):
        assert usage is not None
        assert usage.input_tokens == most.input_tokens
        assert most.output_tokens is not None
        assert usage.output_tokens <= most.output_tokens


@pytest.mark.parametrize("model", ["sim-usage-10-20", "sim-echo", "sim-stream-7"])
def test_what_is_expected_is_what_is_reported(model: str) -> None:
    assert ADAPTER.expected(model, chat("hello big world")) == complete(model).usage


def test_an_answer_that_ended_early_is_counted_in_words() -> None:
    assert ADAPTER.estimate({**chat("hello big world"), "model": "sim-stream-9"}, "word0 word1") == Usage(3, 2)
    assert ADAPTER.estimate({**chat("hello big world"), "model": "sim-usage-50-9"}, "") == Usage(50, 0)
    assert ADAPTER.expected("sim-unknown", chat()) == Usage(0, 0)


@pytest.mark.parametrize(("encoding", "decoded"), [("float", list), ("base64", str)])
def test_embeddings_are_the_same_for_the_same_text(encoding: str, decoded: type) -> None:
    body = {"input": ["same", "same", "other one"], "encoding_format": encoding, "dimensions": 4}
    request = ADAPTER.build_embeddings_request(ENDPOINT, "sim-echo", body)
    _, answer = run(lambda transport: read(transport, request))
    reply = ADAPTER.parse_embeddings_reply(answer)
    first, second, third = (item["embedding"] for item in reply.body["data"])
    assert isinstance(first, decoded)
    assert first == second != third
    assert len(struct.unpack("<4f", base64.b64decode(first)) if isinstance(first, str) else first) == 4
    assert reply.usage == Usage(4, 0)


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": [1]}, {"input": "a", "dimensions": 0}])
def test_embeddings_of_nothing_are_refused(body: dict[str, Any]) -> None:
    request = ADAPTER.build_embeddings_request(ENDPOINT, "sim-echo", body)
    response, _ = run(lambda transport: read(transport, request))
    assert response.status == 400


def test_a_long_stream_leaves_the_loop_to_others() -> None:
    async def call(transport: Transport) -> int:
        request = ADAPTER.build_request(ENDPOINT, "sim-echo", chat("word " * 500, stream=True))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await read_events(transport, request)
        task.cancel()
        return turns

    assert run(call) > 100
