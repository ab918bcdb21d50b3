"""The unmodified openai SDK, pointed at a door."""

import base64
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.conformance.doors import Product, Tenant

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
def tenant(product: Product) -> Tenant:
    return Tenant.create(product)


@pytest.fixture
def client(url: str, tenant: Tenant) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=tenant.key, max_retries=0)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_whole_answer(client: OpenAI, tenant: Tenant) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=user("mock:text=Lisbon"))
    assert answer.choices[0].message.content == "Lisbon"
    assert answer.usage is not None
    entry = tenant.entry()
    assert (entry["tokens_input"], entry["tokens_output"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert entry["response_redacted"] == "Lisbon"


def test_a_streamed_answer_without_usage_that_is_recorded_all_the_same(client: OpenAI, tenant: Tenant) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=user("mock:words=5"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert tenant.entry()["tokens_output"] == 5
    assert tenant.entry()["usage_source"] == "provider"


def test_a_streamed_answer_with_usage_where_it_was_asked_for(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=user("mock:words=5"), stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5


def test_a_tool_call(client: OpenAI, tenant: Tenant) -> None:
    answer = client.chat.completions.create(
        model="gpt-4o-mini", messages=user('mock:tool=weather,arguments={"city":"Oslo"}'), tools=[WEATHER]
    )
    assert answer.choices[0].message.tool_calls is not None
    call = answer.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert "weather" in tenant.entry()["response_redacted"]


def test_a_streamed_tool_call(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="gpt-4o-mini", messages=user('mock:tool=weather,arguments={"city":"Oslo"}'), tools=[WEATHER]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "weather"


def test_a_conversation_with_a_tool_result_goes_on_unchanged(client: OpenAI, product: Product) -> None:
    marker = f"call_{id(client)}"
    messages = [
        *user("Weather?"),
        {
            "role": "assistant",
            "tool_calls": [{"id": marker, "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": marker, "content": "rain"},
        *user("And now?"),
    ]
    client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[WEATHER])
    assert any(call.json["messages"] == messages for call in product.upstream.calls)


def test_json_schema_output(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sim-echo",
        messages=user('{"city": "Oslo"}'),
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Oslo"}


def test_an_image_by_data_url(client: OpenAI, product: Product, tenant: Tenant) -> None:
    content = [
        {"type": "text", "text": f"What is this? {tenant.key_id}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": content}])
    assert any(call.json["messages"][0]["content"] == content for call in product.upstream.calls)
    assert "[image_url]" in tenant.entry()["prompt_redacted"]
    assert PIXEL not in tenant.entry()["prompt_redacted"]


def test_several_choices(client: OpenAI, tenant: Tenant) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=user("mock:text=one"), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert tenant.entry()["tokens_output"] == 3


def test_log_probabilities_and_unknown_parameters_are_passed_on(
    client: OpenAI, product: Product, tenant: Tenant
) -> None:
    extra = {"top_k": 7, "vendor": {"nested": [1, 2]}, "marker": tenant.key_id}
    client.chat.completions.create(
        model="gpt-4o-mini", messages=user("Hi"), logprobs=True, top_logprobs=2, extra_body=extra
    )
    sent = next(call.json for call in product.upstream.calls if call.json.get("marker") == tenant.key_id)
    assert sent.items() >= {**extra, "logprobs": True, "top_logprobs": 2}.items()


def test_the_models_a_caller_may_use(client: OpenAI, product: Product, url: str) -> None:
    assert "sim-echo" in [model.id for model in client.models.list()]
    nobody = Tenant.create(product, allow=())
    assert list(OpenAI(base_url=f"{url}/v1", api_key=nobody.key).models.list()) == []


def test_one_model_that_a_caller_may_use(client: OpenAI, product: Product, url: str) -> None:
    for name in ("sim-echo", "gpt-4o-mini"):
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
    nobody = OpenAI(base_url=f"{url}/v1", api_key=Tenant.create(product, allow=("sim-echo",)).key, max_retries=0)
    assert nobody.models.retrieve("sim-echo").id == "sim-echo"
    for name in ("gpt-4o-mini", "no-such-model", "some/model of mine"):
        with pytest.raises(openai.NotFoundError) as refused:
            nobody.models.retrieve(name)
        assert (refused.value.code, refused.value.param) == ("MODEL_NOT_FOUND", "model")
        assert name in refused.value.message


def test_metadata_and_user_are_recorded_and_searchable(client: OpenAI, tenant: Tenant) -> None:
    client.chat.completions.create(model="sim-echo", messages=user("Hi"), user="u-17", metadata={"team": "blue"})
    client.chat.completions.create(model="sim-echo", messages=user("Hi"), user="u-18", metadata={"team": "red"})
    assert [entry["end_user"] for entry in tenant.entries(**{"metadata.team": "blue"})] == ["u-17"]
    assert [entry["metadata"] for entry in tenant.entries(end_user="u-18")] == [{"team": "red"}]


ERRORS: list[tuple[type[Exception], Callable[[OpenAI], Any]]] = [
    (openai.BadRequestError, lambda c: c.chat.completions.create(model="sim-echo", messages=[])),
    (openai.NotFoundError, lambda c: c.chat.completions.create(model="none-such", messages=user("Hi"))),
    (openai.InternalServerError, lambda c: c.chat.completions.create(model="sim-error-500", messages=user("Hi"))),
    (openai.RateLimitError, lambda c: c.chat.completions.create(model="sim-error-429", messages=user("Hi"))),
]


@pytest.mark.parametrize(("kind", "call"), ERRORS)
def test_our_errors_are_the_sdks_own_exceptions(
    client: OpenAI, kind: type[Exception], call: Callable[[OpenAI], Any]
) -> None:
    with pytest.raises(kind):
        call(client)


def test_an_unknown_key_and_a_forbidden_model_are_the_sdks_own_exceptions(product: Product, url: str) -> None:
    nobody = Tenant.create(product, allow=())
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        OpenAI(base_url=f"{url}/v1", api_key=nobody.key).chat.completions.create(model="sim-echo", messages=user("Hi"))
    assert refusal.value.code == "MODEL_NOT_ALLOWED"
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{url}/v1", api_key="lcp_nobody").chat.completions.create(
            model="sim-echo", messages=user("Hi")
        )


def test_a_broken_stream_raises_in_the_sdk(client: OpenAI) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="sim-broken-2", messages=user("Hi"), stream=True))


def test_a_stream_that_the_client_closes_is_cancelled_and_charged_for_what_came(client: OpenAI, tenant: Tenant) -> None:
    stream = client.chat.completions.create(model="sim-stream-1000", messages=user("Hi"), stream=True)
    for _ in range(5):
        next(stream)
    stream.close()
    entry = tenant.entry()
    assert entry["status"] == "cancelled"
    assert 3 <= entry["tokens_output"] < 1000
    assert float(entry["cost_usd"]) > 0
