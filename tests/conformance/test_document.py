"""What the doors answer is what the OpenAPI document says of inference."""

import json
from typing import Any

import httpx
import pytest

from tests.api.described import Document
from tests.conformance.doors import Product, Tenant, chat, post

CHAT = "POST /v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def document(product: Product) -> Document:
    return Document(httpx.get(f"{product.asgi.url}/v1/openapi.json", timeout=30).json())


def check(document: Document, operation: str, answer: httpx.Response) -> Any:
    """Hold an answer against the document; return its body."""
    described = document.operations[operation]
    assert document.complaint(described, answer.status_code, answer.json()) == ""
    headers = described.about["responses"][str(answer.status_code)]["headers"]
    own = {name for name in answer.headers if name.startswith(("x-", "retry-")) and name not in BROWSERS}
    assert own <= headers.keys()
    return answer.json()


BROWSERS = {"x-content-type-options", "x-frame-options"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"tools": TOOLS},
        {"logprobs": True, "top_logprobs": 1},
        {"metadata": {"team": "blue"}, "user": "u"},
    ],
)
def test_whole_answers(product: Product, url: str, document: Document, fields: dict[str, Any]) -> None:
    tenant = Tenant.create(product, ("rate_limit", {"requests": 10, "tokens": 9999, "per": "minute"}))
    answer = post(url, tenant.key, chat(**fields))
    assert check(document, CHAT, answer)["choices"]
    assert {"x-lcp-cost-usd", "x-lcp-provider", "x-ratelimit-reset-tokens"} <= answer.headers.keys()


@pytest.mark.parametrize("fields", [{}, {"stream_options": {"include_usage": True}}, {"tools": TOOLS}])
def test_every_event_of_a_stream(product: Product, url: str, document: Document, fields: dict[str, Any]) -> None:
    answer = post(url, Tenant.create(product).key, chat(stream=True, **fields))
    *events, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    assert events
    for event in events:
        complaint = document.complaint(document.operations[CHAT], 200, json.loads(event), "text/event-stream")
        assert complaint == ""


def test_refusals(product: Product, url: str, document: Document) -> None:
    blocks = ("guardrail", {"detectors": {"email": "block"}, "direction": "input"})
    tenant = Tenant.create(product, blocks, ("rate_limit", {"tokens": 1, "per": "hour"}), allow=("sim-*",))
    statuses = []
    for key, body in (
        ("lcp_wrong", chat()),
        (tenant.key, b"not json"),
        (tenant.key, chat(model="no-such-model")),
        (tenant.key, chat(model="gpt-4o-mini")),
        (tenant.key, chat("write to jane.doe@example.com", "sim-echo")),
        (tenant.key, chat(model="sim-usage-9-9")),
        (Tenant.create(product).key, chat(model="sim-error-500")),
    ):
        answer = post(url, key, body)
        check(document, CHAT, answer)
        statuses.append(answer.status_code)
    assert statuses == [401, 400, 404, 403, 400, 429, 502]


def test_models(product: Product, url: str, document: Document) -> None:
    headers = {"authorization": f"Bearer {Tenant.create(product).key}"}
    listed = check(document, "GET /v1/models", httpx.get(f"{url}/v1/models", headers=headers))
    assert listed["data"]
    one, none = (httpx.get(f"{url}/v1/models/{name}", headers=headers) for name in ("sim-echo", "no-such-model"))
    assert check(document, "GET /v1/models/{model}", one)["id"] == "sim-echo"
    assert none.status_code == 404
    check(document, "GET /v1/models/{model}", none)
