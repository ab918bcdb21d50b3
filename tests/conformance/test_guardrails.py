"""Guardrails on the path: what reaches the provider, what reaches the client, and what is never stored."""

import json
from typing import Any

import pytest

from tests.conformance.doors import Product, Tenant, chat, post

EMAIL = "jane.doe@example.com"
SECRET = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"


def guard(direction: str = "both", **detectors: str) -> tuple[str, dict[str, Any]]:
    return "guardrail", {"detectors": detectors, "direction": direction}


def sent_upstream(product: Product, tenant: Tenant) -> list[Any]:
    return [call.json for call in product.upstream.calls if call.json.get("marker") == tenant.key_id]


@pytest.mark.parametrize(
    ("text", "detector", "code"), [(EMAIL, "email", "PII_DETECTED"), (SECRET, "secret", "SECRET_DETECTED")]
)
def test_what_is_blocked_never_reaches_the_provider_nor_any_text_of_ours(
    product: Product, url: str, text: str, detector: str, code: str
) -> None:
    tenant = Tenant.create(product, guard("input", **{detector: "block"}))
    answer = post(url, tenant.key, chat(f"Contact {text} now", marker=tenant.key_id))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert sent_upstream(product, tenant) == []
    stored = json.dumps(tenant.entry()) + answer.text + product.logs()
    assert text not in stored
    assert tenant.entry()["status"] == "blocked"


def test_what_is_redacted_reaches_the_provider_redacted(product: Product, url: str) -> None:
    tenant = Tenant.create(product, guard("input", email="redact"))
    assert post(url, tenant.key, chat(f"Contact {EMAIL} now", marker=tenant.key_id)).status_code == 200
    (sent,) = sent_upstream(product, tenant)
    assert sent["messages"][0]["content"] == "Contact [EMAIL] now"
    assert tenant.entry()["prompt_redacted"] == "user: Contact [EMAIL] now"


def test_what_is_flagged_goes_through_and_is_stored_redacted(product: Product, url: str) -> None:
    tenant = Tenant.create(product, guard("input", email="flag"))
    assert post(url, tenant.key, chat(f"Contact {EMAIL} now", marker=tenant.key_id)).status_code == 200
    assert EMAIL in json.dumps(sent_upstream(product, tenant))
    entry = tenant.entry()
    assert EMAIL not in json.dumps(entry)
    assert [(f["detector"], f["action"]) for f in entry["findings"]] == [("email", "flag")]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_redacted_before_the_client_sees_it(product: Product, url: str, stream: bool) -> None:
    tenant = Tenant.create(product, guard("output", email="redact"))
    text = post(url, tenant.key, chat(f"Write to {EMAIL} please", "sim-echo", stream=stream)).text
    assert EMAIL not in text
    assert "[EMAIL]" in text
    assert ("[DONE]" in text) is stream
    assert tenant.entry()["status"] == "success"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_blocked_is_paid_for_and_not_shown(product: Product, url: str, stream: bool) -> None:
    tenant = Tenant.create(product, guard("output", email="block"))
    answer = post(url, tenant.key, chat(f"Write to {EMAIL} please", "sim-echo", stream=stream))
    assert EMAIL not in answer.text
    assert "PII_DETECTED" in answer.text
    entry = tenant.entry()
    assert (entry["status"], entry["error_code"]) == ("blocked", "PII_DETECTED")
    assert float(entry["cost_usd"]) > 0


def test_an_image_is_refused_where_a_guardrail_must_read_everything(product: Product, url: str) -> None:
    tenant = Tenant.create(product, guard("input", email="block"))
    parts = [{"type": "image_url", "image_url": {"url": "https://images.example.com/a.png"}}]
    answer = post(url, tenant.key, {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UNSCANNABLE_CONTENT")


def test_an_image_passes_unread_where_the_guardrail_says_so(product: Product, url: str) -> None:
    kind, config = guard("input", email="block")
    tenant = Tenant.create(product, (kind, {**config, "unscannable": "allow"}))
    text = {"type": "text", "text": "What is this?"}
    parts = [text, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]}
    assert post(url, tenant.key, body).status_code == 200
    text["text"] = f"Is this {EMAIL}?"
    assert post(url, tenant.key, body).json()["error"]["code"] == "PII_DETECTED"


def test_labels_and_metadata_are_stored_redacted(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    body = chat(model="sim-echo", user=EMAIL, metadata={"who": EMAIL})
    assert post(url, tenant.key, body).status_code == 200
    assert EMAIL not in json.dumps(tenant.entry())
    assert tenant.entry()["end_user"] == "[EMAIL]"


def test_a_guardrail_in_shadow_records_and_lets_through(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    tenant.add("guardrail", {"detectors": {"email": "block"}, "direction": "input"}, mode="shadow")
    assert post(url, tenant.key, chat(f"Contact {EMAIL}", "sim-echo")).status_code == 200
    found = next(f for f in tenant.entry()["findings"] if f["where"] == "input")
    assert (found["action"], found["shadow_action"]) == ("none", "block")
