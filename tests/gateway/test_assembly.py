"""A streamed answer put together: every text in it must be seen, in whatever field it comes."""

from typing import Any

import orjson

from apps.gateway.assembly import Assembly
from apps.gateway.providers.base import Chunk


def message_of(*deltas: dict[str, Any]) -> dict[str, Any]:
    assembly = Assembly()
    for delta in deltas:
        body = {"choices": [{"index": 0, "delta": delta}]}
        assembly.add(Chunk(orjson.dumps(body), body))
    (message,) = assembly.messages()
    return message


def test_text_is_joined() -> None:
    message = message_of({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo", "refusal": None})
    assert message == {"role": "assistant", "content": "Hello"}


def test_calls_are_told_apart_by_their_index_and_keep_their_order() -> None:
    message = message_of(
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": "}"}}]},
    )
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_what_a_provider_repeats_in_every_delta_stands_once() -> None:
    delta = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "x"}}]}
    call = message_of(delta, delta)["tool_calls"][0]
    assert (call["id"], call["function"]) == ("a", {"name": "f", "arguments": "xx"})


def test_a_name_that_comes_in_pieces_is_seen_whole() -> None:
    message = message_of({"function_call": {"name": "jane.doe@"}}, {"function_call": {"name": "example.com"}})
    assert message["function_call"] == {"name": "jane.doe@example.com"}


def test_legacy_calls_custom_tools_audio_and_unknown_objects_are_put_together() -> None:
    message = message_of(
        {"function_call": {"name": "mail", "arguments": '{"to": "jane.'}, "audio": {"id": "1", "transcript": "jane."}},
        {"function_call": {"arguments": 'doe@example.com"}'}, "audio": {"transcript": "doe@example.com"}},
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls "}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "-l"}}], "x_notes": [{"text": "one"}]},
        {"x_notes": [{"text": "two"}]},
    )
    assert message["function_call"] == {"name": "mail", "arguments": '{"to": "jane.doe@example.com"}'}
    assert message["audio"] == {"id": "1", "transcript": "jane.doe@example.com"}
    assert message["tool_calls"] == [{"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}]
    assert message["x_notes"] == [{"text": "one"}, {"text": "two"}]


def test_a_field_that_is_text_first_and_then_an_object_hides_neither() -> None:
    assert "secret" in orjson.dumps(message_of({"x": "secret"}, {"x": {"y": 1}})).decode()
