"""The strings of a JSON value: all of them, in one order, replaced without a trace of the old value."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.policies.guardrails.strings import places_of, replace_strings, strings_of, unscannable_parts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4),
    max_leaves=20,
)


def every_string(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in every_string(item)]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *every_string(item)]]
    return []


@given(VALUES)
def test_every_string_is_listed_once(value: Any) -> None:
    assert sorted(strings_of(value)) == sorted(every_string(value))


@given(VALUES)
def test_replacing_nothing_gives_an_equal_value(value: Any) -> None:
    assert replace_strings(value, {}) == value


@given(VALUES, st.data())
def test_the_string_of_a_number_is_the_one_replaced(value: Any, data: st.DataObject) -> None:
    strings = strings_of(value)
    numbers = data.draw(st.sets(st.integers(0, max(0, len(strings) - 1))))
    unique = {number: f"<replacement {number}>" for number in numbers if number < len(strings)}
    assert strings_of(replace_strings(value, unique)) == [unique.get(i, s) for i, s in enumerate(strings)]


@given(VALUES)
def test_the_given_value_is_not_changed(value: Any) -> None:
    before = copy.deepcopy(value)
    replace_strings(value, dict.fromkeys(range(len(strings_of(value))), "x"))
    assert value == before


@given(VALUES)
def test_the_copy_shares_no_container_with_the_given_value(value: Any) -> None:
    copied = replace_strings([value], {})
    assert isinstance(copied, list)
    assert not isinstance(value, (dict, list)) or copied[0] is not value


def test_entries_whose_keys_become_equal_are_all_kept() -> None:
    value = {"a": 1, "b": 2, "c": 3, "[EMAIL]": 4}
    replaced = replace_strings(value, {0: "[EMAIL]", 1: "[EMAIL]", 2: "[EMAIL]"})
    assert replaced == {"[EMAIL]": 1, "[EMAIL] (2)": 2, "[EMAIL] (3)": 3, "[EMAIL] (4)": 4}


@pytest.mark.parametrize("depth", [10_000])
def test_depth_is_no_limit(depth: int) -> None:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    assert strings_of(value)[-1] == "deep"
    changed = replace_strings(value, {depth // 2: "changed"})
    for level in reversed(range(depth)):
        changed = changed[0] if level % 2 else changed["k"]  # type: ignore[index, call-overload]
    assert changed == "changed"


def test_a_bare_string_is_a_value() -> None:
    assert strings_of("x") == ["x"]
    assert replace_strings("x", {0: "y"}) == "y"


PARTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"messages": [{"role": "user", "content": "text"}]}, []),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, []),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, []),
    ({"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]}]}, []),
    (
        {"messages": [{"content": "x"}, {"content": [{"type": "text"}, {"type": "image_url", "image_url": {}}]}]},
        ["messages[1].content[1]"],
    ),
    (
        {"messages": [{"content": [{"type": "input_audio"}, {"type": "file"}]}]},
        ["messages[0].content[0]", "messages[0].content[1]"],
    ),
    (
        {"messages": [{"content": [{"type": "hologram"}, {"text": "no type"}, 7]}]},
        [f"messages[0].content[{i}]" for i in range(3)],
    ),
    ({"messages": [{"content": {"type": "image"}}]}, ["messages[0].content"]),
    ({"messages": [{"content": None, "audio": {"id": "audio_1"}}]}, ["messages[0].audio"]),
    (
        {"messages": [{"content": [{"type": "tool_result", "content": [{"type": "text"}, {"type": "image"}]}]}]},
        ["messages[0].content[0].content[1]"],
    ),
    ({"system": [{"type": "text", "text": "x"}, {"type": "image"}]}, ["system[1]"]),
    ({"input": ["a", "b"]}, []),
    ({"input": [1, 2]}, ["input[0]", "input[1]"]),
    ({"messages": "nonsense", "prediction": {"content": [{"type": "image"}]}}, ["prediction.content[0]"]),
    ({}, []),
]


@pytest.mark.parametrize(("body", "paths"), PARTS, ids=lambda value: json.dumps(value)[:60])
def test_parts_that_are_no_text_are_named(body: dict[str, Any], paths: list[str]) -> None:
    assert unscannable_parts(body) == paths


@given(VALUES)
def test_every_string_has_a_place(value: Any) -> None:
    strings = strings_of(value)
    assert places_of(value, range(len(strings))).keys() == set(range(len(strings)))
    assert places_of(value, ()) == {}


def test_a_place_names_what_is_the_apis_own_and_no_word_of_the_callers() -> None:
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "one"}]}],
        "metadata": {"jane.doe@example.org": ["two"]},
    }
    places = places_of(body, range(99))
    named = dict(zip((places[number] for number in range(len(places))), strings_of(body), strict=True))
    assert named["messages[0].content[0].text"] == "one"
    assert named["metadata.*[0]"] == "two"
    assert named["metadata.* (its name)"] == "jane.doe@example.org"
    assert named["messages[0].role"] == "user"
    assert places_of([{"message": {"content": "x"}}], range(9))[2] == "[0].message.content"
    assert places_of("alone", {0}) == {0: ""}
