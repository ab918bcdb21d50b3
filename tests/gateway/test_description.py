"""The described request and the request that is read are one: what fits is taken, and what does not is refused."""

from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.description import CHAT_REQUEST
from apps.gateway.errors import InvalidRequest
from apps.gateway.prompt import PASSED_ON, parse
from tests.api.described import LINE, Document

DOCUMENT = Document({"components": {"schemas": {}}, "paths": {}})
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": LINE})
KNOWN = {
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": st.one_of(LINE, st.lists(PARTS))}),
        min_size=1,
        max_size=3,
    ),
    "model": st.just("gpt-4o-mini"),
    "n": st.integers(1, 128),
    "metadata": st.dictionaries(LINE, LINE, max_size=3),
    **{
        name: st.dictionaries(st.sampled_from(["a", "b"]), st.integers(-9, 9))
        for name, (types, _) in PASSED_ON.items()
        if dict in types
    },
}


@given(DOCUMENT.requests(CHAT_REQUEST, KNOWN))
def test_what_fits_the_description_is_taken(body: dict[str, Any]) -> None:
    if not body.get("stream"):
        body.pop("stream_options", None)
    assert fits(body)
    assert parse(orjson.dumps(body)).model == "gpt-4o-mini"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": "x" * 257},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"content": "hello"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [{}]}]},
        {"messages": [{"role": "user", "name": 7}]},
        {"messages": [{"role": "assistant", "tool_calls": [7]}]},
        {"n": 0},
        {"n": 129},
        {"max_tokens": 0},
        {"max_completion_tokens": 1.5},
        {"top_logprobs": -1},
        {"temperature": "hot"},
        {"stream": "yes"},
        {"stream": True, "stream_options": []},
        {"stream": True, "stream_options": {"include_usage": 1}},
        {"user": "x" * 257},
        {"metadata": {"team": 7}},
        {"metadata": {"team": "x" * 513}},
        {"metadata": {str(number): "x" for number in range(17)}},
        {"stop": [7]},
        {"tools": [7]},
        {"tools": [{"type": 7}]},
        {"functions": {}},
        {"modalities": [7]},
        *({name: 0.5} for name in PASSED_ON),
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any]) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], **fields}
    assert not fits(body)
    with pytest.raises(InvalidRequest):
        parse(orjson.dumps(body))


def fits(body: Any) -> bool:
    return not list(jsonschema.Draft202012Validator(_as_json_schema(CHAT_REQUEST)).iter_errors(body))


def _as_json_schema(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 in JSON Schema's words, which know no ``nullable``."""
    if isinstance(schema, list):
        return [_as_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _as_json_schema(one) for name, one in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made
