"""Headers, errors, their order, and the exact bill."""

import json
import socket
import time
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.conformance.doors import Product, Tenant, chat, post

EMAIL_BLOCK = ("guardrail", {"detectors": {"email": "block"}, "direction": "input"})
NO_RATE = ("rate_limit", {"tokens": 1, "per": "hour"})
NO_MONEY = ("cost_cap", {"limit_usd": "0", "per": "day"})
LEAK = "write to jane.doe@example.com"


def refusal(answer: httpx.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "details"}
    assert UUID(answer.headers["x-request-id"])
    if answer.status_code in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, error["code"]


def test_refusals_come_in_the_order_of_the_contract(product: Product, url: str) -> None:
    tenant = Tenant.create(product, EMAIL_BLOCK, NO_RATE, NO_MONEY, allow=("sim-*",))
    steps: list[tuple[str, Any, tuple[int, str]]] = [
        ("lcp_wrong", b"not json", (401, "UNAUTHENTICATED")),
        (tenant.key, b"not json", (400, "INVALID_REQUEST")),
        (tenant.key, chat(LEAK, "no-such-model"), (404, "MODEL_NOT_FOUND")),
        (tenant.key, chat(LEAK, "gpt-4o-mini"), (403, "MODEL_NOT_ALLOWED")),
        (tenant.key, chat(LEAK, "sim-usage-9-9"), (400, "PII_DETECTED")),
        (tenant.key, chat("fine", "sim-usage-9-9"), (429, "RATE_LIMIT_EXCEEDED")),
    ]
    assert [refusal(post(url, key, body)) for key, body, _ in steps] == [expected for _, _, expected in steps]
    poor = Tenant.create(product, NO_MONEY)
    assert refusal(post(url, poor.key, chat(model="sim-error-500"))) == (429, "BUDGET_EXCEEDED")


def test_a_key_of_no_organization_is_refused_after_the_shape(product: Product, url: str) -> None:
    key = product.demo["admin_api_key"]
    assert refusal(post(url, key, b"not json")) == (400, "INVALID_REQUEST")
    assert refusal(post(url, key, chat())) == (403, "FORBIDDEN")


def test_an_answer_carries_its_id_its_cost_its_provider_and_the_tightest_limit(product: Product, url: str) -> None:
    tenant = Tenant.create(
        product,
        ("rate_limit", {"requests": 10, "per": "minute"}),
        ("rate_limit", {"requests": 3, "tokens": 5000, "per": "hour"}),
    )
    headers = post(url, tenant.key, chat(model="sim-usage-100-50")).headers
    assert headers["x-lcp-cost-usd"] == "0.0002"
    assert headers["x-lcp-provider"] == "simulated"
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("3", "2")
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-limit-tokens"]) == ("3", "5000")
    entry = tenant.entry()
    assert entry["id"] == entry["request_id"] == headers["x-request-id"]
    assert entry["cost_usd"] == "0.0002"


def test_a_limit_of_three_admits_three_and_says_when_to_come_again(product: Product, url: str) -> None:
    tenant = Tenant.create(product, ("rate_limit", {"requests": 3, "per": "hour"}))
    statuses = [post(url, tenant.key, chat(model="sim-echo")).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert [entry["status"] for entry in tenant.entries()] == ["success"] * 3 + ["blocked"] * 2


def test_a_cap_for_exactly_three_admits_three(product: Product, url: str) -> None:
    tenant = Tenant.create(product, ("cost_cap", {"limit_usd": "0.0006", "per": "day"}))
    answers = [post(url, tenant.key, chat(model="sim-usage-100-50", max_tokens=50)) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert "0.0006" in answers[-1].json()["error"]["message"]


def test_a_clamping_cap_lowers_what_the_provider_may_produce(product: Product, url: str) -> None:
    tenant = Tenant.create(product, ("cost_cap", {"limit_usd": "0.001", "per": "day", "fit": "clamp"}))
    marker = tenant.key_id
    assert post(url, tenant.key, chat("Hi", max_tokens=100_000, marker=marker)).status_code == 200
    sent = next(call.json for call in product.upstream.calls if call.json.get("marker") == marker)
    assert 0 < sent["max_tokens"] < 2000


def test_what_cannot_be_bounded_is_refused_under_a_hard_cap(product: Product, url: str) -> None:
    tenant = Tenant.create(product, ("cost_cap", {"limit_usd": "1000", "per": "day"}))
    assert post(url, tenant.key, chat("Hi")).status_code == 200  # the context window bounds it
    without_price = post(url, tenant.key, chat("Hi", model="gpt-no-price-for-this"))
    assert refusal(without_price) == (403, "MODEL_NOT_ALLOWED")


def test_tokens_and_cost_agree_with_the_providers_usage_exactly(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    text = "mock:input_tokens=1234,output_tokens=567,cached_tokens=234"
    assert post(url, tenant.key, chat(text)).headers["x-lcp-cost-usd"] == "0.00050775"
    entry = tenant.entry()
    assert (entry["tokens_input"], entry["tokens_output"]) == (1234, 567)
    # 1,000 at 0.15, 234 cached at 0.075 and 567 at 0.60 USD a million
    assert entry["cost_usd"] == "0.00050775"


def test_what_a_provider_uses_beyond_what_it_was_asked_for_is_posted_and_shown(product: Product, url: str) -> None:
    tenant = Tenant.create(product, ("cost_cap", {"limit_usd": "1", "per": "day"}))
    assert post(url, tenant.key, chat(model="sim-usage-10-1000", max_tokens=100)).status_code == 200
    entry = tenant.entry()
    assert entry["tokens_output"] == 1000
    assert entry["overrun_usd"] == "0.0018"


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        ("status=400", 400, "PROVIDER_ERROR"),
        ("status=404", 404, "PROVIDER_ERROR"),
        ("status=413", 413, "PROVIDER_ERROR"),
        ("status=422", 422, "PROVIDER_ERROR"),
        ("status=429,retry_after=7", 429, "PROVIDER_ERROR"),
        ("status=401", 502, "PROVIDER_ERROR"),
        ("status=403", 502, "PROVIDER_ERROR"),
        ("status=500", 502, "PROVIDER_ERROR"),
        ("status=503", 502, "PROVIDER_ERROR"),
        ("redirect=/v1/elsewhere,status=302", 502, "PROVIDER_ERROR"),
        ("garbage=text", 502, "PROVIDER_ERROR"),
        ("garbage=shape", 502, "PROVIDER_ERROR"),
        ("garbage=huge", 502, "PROVIDER_ERROR"),
        ("garbage=gzip_bomb", 502, "PROVIDER_ERROR"),
        ("breaks=headers", 502, "PROVIDER_ERROR"),
        ("breaks=body", 502, "PROVIDER_ERROR"),
        ("hang=headers", 504, "PROVIDER_TIMEOUT"),
    ],
)
def test_each_way_a_provider_fails_has_its_answer_and_one_record(
    product: Product, url: str, upstream: str, status: int, code: str
) -> None:
    tenant = Tenant.create(product, ("cost_cap", {"limit_usd": "1", "per": "day"}))
    answer = post(url, tenant.key, chat(f"mock:{upstream}"))
    assert refusal(answer) == (status, code)
    entry = tenant.entry()
    assert (entry["status"], entry["http_status"], entry["error_code"]) == ("error", status, code)
    assert "upstream-secret" not in json.dumps(entry) + answer.text


@pytest.mark.parametrize(
    "upstream", ["words=5,breaks=stream,after=2", "words=5,hang=stream,after=2", "words=5,error_event=1,after=2"]
)
def test_a_stream_that_fails_upstream_ends_with_an_error_and_one_record(
    product: Product, url: str, upstream: str
) -> None:
    tenant = Tenant.create(product)
    text = post(url, tenant.key, chat(f"mock:{upstream}", stream=True)).text
    assert "[DONE]" not in text
    assert json.loads(text.strip().splitlines()[-1].removeprefix("data: "))["error"]["code"].startswith("PROVIDER_")
    assert tenant.entry()["status"] == "error"
    assert tenant.entry()["tokens_output"] >= 1


def test_a_key_a_policy_and_an_organization_that_change_hold_for_the_next_request(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    api = httpx.Client(
        base_url=f"{product.asgi.url}/v1/admin", headers={"Authorization": f"Bearer {product.demo['admin_api_key']}"}
    )
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 200
    policy = tenant.add("model_restriction", {"deny": ["sim-echo"]})
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 403
    assert api.delete(f"/policies/{policy['id']}").status_code == 204
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 200
    api.patch(f"/organizations/{tenant.organization}", json={"state": "suspended"})
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 403
    api.patch(f"/organizations/{tenant.organization}", json={"state": "active"})
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 200
    api.post(f"/keys/{tenant.key_id}/revoke")
    assert post(url, tenant.key, chat(model="sim-echo")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/sim-echo"),
        ("GET", "/v1/chat/completions"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/v1/admin/organizations"),
        ("GET", "/v1/nowhere"),
        ("GET", "/admin/login/"),
    ],
)
def test_every_answer_has_an_id(product: Product, url: str, method: str, path: str) -> None:
    assert UUID(httpx.request(method, f"{url}{path}", timeout=30).headers["x-request-id"])


def test_a_program_with_a_wrong_base_url_is_told_where_the_api_is(product: Product, url: str) -> None:
    for path, accept in (("/chat/completions", "application/json"), ("/chat/completions", "*/*"), ("/v1", "*/*")):
        answer = httpx.post(f"{url}{path}", json={}, headers={"accept": accept})
        assert refusal(answer) == (404, "NOT_FOUND")
        assert "/v1/" in answer.json()["error"]["message"]


def test_labels_stay_with_the_gateway_unless_the_provider_is_to_store_the_answer(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    labels = {"team": tenant.key_id}
    for store in (None, False, True):
        assert post(url, tenant.key, chat(metadata=labels, store=store, marker=tenant.key_id)).status_code == 200
    sent = [call.json.get("metadata") for call in product.upstream.calls if call.json.get("marker") == tenant.key_id]
    assert sent == [None, None, labels]
    assert len(tenant.entries(**{"metadata.team": tenant.key_id})) == 3


def test_a_client_that_leaves_before_a_whole_answer_is_cancelled_and_pays_what_the_provider_used(
    product: Product,
) -> None:
    # Under WSGI the server does not tell that a client has left.
    tenant = Tenant.create(product)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{product.url('asgi')}/v1/chat/completions",
            headers={"authorization": f"Bearer {tenant.key}"},
            json=chat("mock:delay=1,input_tokens=100,output_tokens=50"),
            timeout=0.5,
        )
    entry = tenant.entry()
    assert (entry["status"], entry["usage_source"]) == ("cancelled", "provider")
    assert (entry["tokens_input"], entry["tokens_output"]) == (100, 50)


def test_a_call_whose_client_has_left_holds_its_slot_until_the_provider_is_done_with_it(product: Product) -> None:
    tenant = Tenant.create(product, ("rate_limit", {"concurrent": 1}))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{product.url('asgi')}/v1/chat/completions",
            headers={"authorization": f"Bearer {tenant.key}"},
            json=chat("mock:delay=1.5"),
            timeout=0.5,
        )
    url = product.url("asgi")
    assert refusal(post(url, tenant.key, chat())) == (429, "RATE_LIMIT_EXCEEDED")
    while not any(entry["status"] == "cancelled" for entry in tenant.entries()):
        time.sleep(0.05)
    while (answer := post(url, tenant.key, chat())).status_code != 200:  # it comes back just after the record
        assert refusal(answer) == (429, "RATE_LIMIT_EXCEEDED")


def test_a_client_that_stops_reading_is_given_up(product: Product) -> None:
    tenant = Tenant.create(product)
    body = json.dumps(chat("mock:words=200000", stream=True)).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", product.asgi.port))
        head = f"host: localhost\r\nauthorization: Bearer {tenant.key}\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode() + body)
        entry = tenant.entry(seconds=15)
    assert entry["status"] == "cancelled"
    assert 0 < entry["tokens_output"] < 200_000


def test_a_client_that_leaves_with_requests_in_line_is_seen_to_leave(product: Product) -> None:
    tenant = Tenant.create(product)
    first, second = (json.dumps(chat(model=m, stream=True)).encode() for m in ("sim-stream-100000", "sim-echo"))
    with socket.create_connection(("127.0.0.1", product.asgi.port)) as sock:
        for body in (first, second):
            head = f"host: localhost\r\nauthorization: Bearer {tenant.key}\r\ncontent-length: {len(body)}\r\n\r\n"
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode() + body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert tenant.entry()["status"] == "cancelled"
