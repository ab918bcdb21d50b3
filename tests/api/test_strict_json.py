import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.orgs.strict_json import StrictJsonError, parse_strict

STRICT_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=1)), inner),
    max_leaves=20,
)


@given(STRICT_VALUES, st.booleans())
def test_what_the_standard_library_writes_is_read_back(value, ascii_only):
    assert parse_strict(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_never_crash(body):
    with contextlib.suppress(StrictJsonError):
        parse_strict(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1] 2",
        b"NaN",
        b'{"a": -Infinity}',
        b"1e999",
        b"-1e999",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'["fine", {"\\udfff": 1}]',
        b'"\\u0000"',
        b'{"a\\u0000": 1}',
        b'"\x00"',
        b'"\n"',
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": {"a": 1, "a": 2}}]',
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1" * 5000,
        b"-" + b"1" * 5000,
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 2000 + b"]" * 2000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_strict_json_is_refused(body):
    with pytest.raises(StrictJsonError):
        parse_strict(body)


def test_the_refusal_does_not_quote_the_body():
    with pytest.raises(StrictJsonError) as refusal:
        parse_strict(b'{"card": 4111111111111111 oops')
    assert "4111" not in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b'"\\\\u0000"', "\\u0000"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"null", None),
        (b" [ ] ", []),
        (b'{"a": {"b": 1}, "b": {"a": 1}}', {"a": {"b": 1}, "b": {"a": 1}}),
    ],
)
def test_the_edges_of_what_is_allowed_are_read(body, value):
    assert parse_strict(body) == value


def test_nesting_is_counted_in_depth_and_not_in_brackets():
    wide = b"[" + b"[]," * 500 + b"[]]"
    assert len(parse_strict(wide)) == 501


def test_brackets_inside_texts_do_not_nest():
    assert parse_strict(b'["' + b"[{" * 200 + b'"]') == ["[{" * 200]


def test_the_deepest_allowed_nesting_is_read():
    assert parse_strict(b"[" * 64 + b"]" * 64)
