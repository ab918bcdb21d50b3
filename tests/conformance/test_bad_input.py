"""Whatever comes in, what goes out is a clear error in the API's shape: never a 500, never a hang."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conformance.doors import Product, Tenant, chat, post


def with_fields(**fields: Any) -> bytes:
    return json.dumps({**chat(model="sim-echo"), **fields}).encode()


def nested(depth: int) -> bytes:
    return (
        b'{"model": "sim-echo", "messages": [{"role": "user", "content": "Hi"}], "x": '
        + b"[" * depth
        + b"]" * depth
        + b"}"
    )


BODIES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not JSON", b"hello"),
    ("cut off", b'{"model": "sim-echo", "messages": ['),
    ("a list", b"[]"),
    ("a number", b"7"),
    ("null", b"null"),
    ("too deep", nested(70)),
    ("far too deep", nested(100_000)),
    ("NaN", with_fields().replace(b'"sim-echo"', b'"sim-echo", "temperature": NaN')),
    ("Infinity", with_fields().replace(b'"sim-echo"', b'"sim-echo", "temperature": Infinity')),
    ("a key twice", b'{"model": "sim-echo", "model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}'),
    ("a huge integer", with_fields().replace(b'"sim-echo"', b'"sim-echo", "seed": ' + b"9" * 5000)),
    ("bad UTF-8", with_fields().replace(b"Hello", b"\xff\xfe")),
    ("a lone surrogate", with_fields().replace(b"Hello", b"\\ud800")),
    ("a NUL", with_fields().replace(b"Hello", b"\\u0000")),
    ("a NUL in a key", with_fields(metadata={"a\0b": "c"})),
    ("no messages", with_fields(messages=[])),
    ("messages that are none", with_fields(messages="Hi")),
    ("a message that is none", with_fields(messages=["Hi"])),
    ("a message without a role", with_fields(messages=[{"content": "Hi"}])),
    ("content that is a number", with_fields(messages=[{"role": "user", "content": 7}])),
    ("a part without a type", with_fields(messages=[{"role": "user", "content": [{"text": "Hi"}]}])),
    ("a text part without text", with_fields(messages=[{"role": "user", "content": [{"type": "text"}]}])),
    ("tool calls that are none", with_fields(messages=[{"role": "assistant", "tool_calls": 7}])),
    ("no model", with_fields(model=None)),
    ("a model that is a number", with_fields(model=7)),
    ("a model of 300 characters", with_fields(model="x" * 300)),
    ("negative n", with_fields(n=-1)),
    ("n of zero", with_fields(n=0)),
    ("n that is true", with_fields(n=True)),
    ("n that is a fraction", with_fields(n=1.5)),
    ("absurd n", with_fields(n=10**9)),
    ("negative max_tokens", with_fields(max_tokens=-5)),
    ("max_tokens that is a text", with_fields(max_tokens="many")),
    ("temperature that is a text", with_fields(temperature="hot")),
    ("stream that is a text", with_fields(stream="yes")),
    ("stream options without a stream", with_fields(stream_options={"include_usage": True})),
    ("stream options that are none", with_fields(stream=True, stream_options=[])),
    ("tools that are none", with_fields(tools={"a": 1})),
    ("stop that is a number", with_fields(stop=7)),
    ("user that is a list", with_fields(user=["me"])),
    ("metadata that is a list", with_fields(metadata=["a"])),
    ("metadata of numbers", with_fields(metadata={"a": 1})),
    ("too much metadata", with_fields(metadata={str(n): "x" for n in range(100)})),
    ("response format that is a text", with_fields(response_format="json")),
    ("a response format whose type is a list", with_fields(response_format={"type": []})),
    ("a tool whose type is an object", with_fields(tools=[{"type": {}}])),
    ("modalities that are a number", with_fields(modalities=7)),
    ("a modality that is an object", with_fields(modalities=[{}])),
    ("a tool choice that is a list", with_fields(tool_choice=[])),
    ("a seed that is a text", with_fields(seed="7")),
    ("logprobs that are a number", with_fields(logprobs=5)),
    ("store that is a text", with_fields(store="yes")),
    ("a prediction that is a list", with_fields(prediction=[])),
    ("reasoning effort that is a number", with_fields(reasoning_effort=7)),
    ("a name that is a number", with_fields(messages=[{"role": "user", "name": 7, "content": "Hi"}])),
]


@pytest.mark.parametrize(("name", "body"), BODIES, ids=[name for name, _ in BODIES])
def test_a_bad_body_is_a_400_in_the_apis_shape_and_one_record(
    product: Product, url: str, name: str, body: bytes
) -> None:
    tenant = Tenant.create(product)
    answer = post(url, tenant.key, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert tenant.entry()["error_code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "fields",
    [
        {"prediction": {"type": "content", "content": [{"type": []}]}},
        {"system": [{"type": {}}]},
        {"input": {"type": []}},
        {"tools": [{"type": "function"}], "tool_choice": {"function": []}, "web_search_options": 0.5},
    ],
)
def test_odd_shapes_are_refused_or_passed_on_where_guardrails_and_caps_look_at_all_of_them(
    product: Product, url: str, fields: dict[str, Any]
) -> None:
    guard = ("guardrail", {"detectors": {"email": "block"}, "direction": "both"})
    tenant = Tenant.create(product, guard, ("cost_cap", {"limit_usd": "100", "per": "day"}))
    for model in ("sim-echo", "gpt-4o-mini"):
        assert post(url, tenant.key, chat(model=model, **fields)).status_code in (200, 400)


def test_a_body_over_the_limit_is_a_413_by_its_length_and_in_pieces(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    huge = with_fields(padding="x" * (11 * 1024 * 1024))
    assert post(url, tenant.key, huge).status_code == 413
    pieces = (huge[start : start + 65_536] for start in range(0, len(huge), 65_536))
    head = {"authorization": f"Bearer {tenant.key}", "content-type": "application/json"}

    answer = httpx.post(f"{url}/v1/chat/completions", content=pieces, headers=head, timeout=30)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert len(tenant.entries()) == 2


def test_a_compressed_body_is_a_415(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    assert post(url, tenant.key, with_fields(), {"content-encoding": "gzip"}).status_code == 415
    assert post(url, tenant.key, with_fields(), {"content-encoding": "Identity"}).status_code == 200
    twice = f"authorization: Bearer {tenant.key}\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n"
    assert status_of(raw(url, twice, with_fields())) == 415


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic abc", "Bearer lcp_short", "Bearer a b", "lcp_x", "Bearer " + "x" * 8000]
)
def test_a_malformed_authorization_is_a_401(product: Product, url: str, header: str) -> None:
    answer = post(url, "", with_fields(), {"authorization": header})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED")


def test_no_authorization_and_two_of_them_are_a_401(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    line = f"authorization: Bearer {tenant.key}\r\n"
    assert status_of(raw(url, "", with_fields())) == 401
    assert status_of(raw(url, line + line, with_fields())) == 401
    assert status_of(raw(url, line, with_fields())) == 200


def test_two_lengths_of_one_body_are_refused(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    line = f"authorization: Bearer {tenant.key}\r\ntransfer-encoding: chunked\r\n"
    assert status_of(raw(url, line, b"0\r\n\r\n")) in (400, 501)


def test_control_characters_in_a_header_are_refused(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    line = f"authorization: Bearer {tenant.key}\r\nx-odd: a\x01b\x00c\r\n"
    assert 400 <= status_of(raw(url, line, with_fields())) < 500


HEADS = [
    ("one long header", f"x-long: {'a' * 100_000}\r\n\r\n"),
    ("many headers", "".join(f"x-{number}: a\r\n" for number in range(20_000)) + "\r\n"),
    ("a header without an end", f"x-long: {'a' * 1_000_000}"),
]


@pytest.mark.parametrize(("name", "lines"), HEADS, ids=[name for name, _ in HEADS])
def test_a_head_over_the_limit_is_a_431_in_the_apis_shape(product: Product, name: str, lines: str) -> None:
    # Under WSGI the server's own limits rule.
    with connect(product.url("asgi")) as sock:
        sock.sendall(f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{lines}".encode())
        answer = sock.recv(65_536)
    assert status_of(answer) == 431
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "INVALID_REQUEST"


def test_a_body_that_asks_for_another_protocol_is_told_to_ask_for_none(product: Product) -> None:
    tenant = Tenant.create(product)
    line = f"authorization: Bearer {tenant.key}\r\nupgrade: h2c\r\nconnection: upgrade\r\n"
    answer = raw(product.url("asgi"), line, with_fields())
    assert status_of(answer) == 400
    assert b"'Upgrade'" in answer


@pytest.mark.parametrize("hosts", ["", "host: localhost\r\nhost: localhost\r\n"])
def test_a_request_needs_one_host(product: Product, hosts: str) -> None:
    # Under WSGI the server's own rules hold.
    with connect(product.url("asgi")) as sock:
        sock.sendall(f"GET /health HTTP/1.1\r\n{hosts}\r\n".encode())
        answer = sock.recv(65_536)
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "INVALID_REQUEST"


def test_a_request_of_http_1_0_needs_no_host(product: Product) -> None:
    with connect(product.url("asgi")) as sock:
        sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert status_of(sock.recv(65_536)) == 200


def test_what_follows_a_body_is_no_header(product: Product) -> None:
    tenant = Tenant.create(product)
    body = with_fields()
    with connect(product.url("asgi")) as sock:
        head = f"host: localhost\r\nauthorization: Bearer {tenant.key}\r\ntransfer-encoding: chunked\r\n\r\n"
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\nauthorization: Bearer other\r\n\r\n"
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode() + chunk)
        assert status_of(sock.recv(65_536)) == 200


def test_a_slow_body_is_given_up(product: Product) -> None:
    # Under WSGI the server's own timeouts rule: its application cannot leave a read that blocks.
    tenant = Tenant.create(product)
    with connect(product.url("asgi")) as sock:
        head = f"authorization: Bearer {tenant.key}\r\ncontent-length: 1000\r\n"
        sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{head}\r\n{{".encode())
        answer = sock.recv(65_536)
    assert status_of(answer) == 408
    assert tenant.entry()["http_status"] == 408


@pytest.mark.parametrize("requests_before", [0, 1])
def test_slow_headers_are_given_up(product: Product, requests_before: int) -> None:
    with connect(product.url("asgi")) as sock:
        for _ in range(requests_before):
            sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = b""
            while b"}" not in answer:
                answer += sock.recv(65_536)
            assert status_of(answer) == 200
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: local")
        assert sock.recv(65_536) == b""


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(product: Product, url: str) -> None:
    tenant = Tenant.create(product)
    with connect(url) as sock:
        head = f"authorization: Bearer {tenant.key}\r\ncontent-length: 1000\r\n"
        sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{head}\r\n{{".encode())
    assert post(url, tenant.key, with_fields()).status_code == 200
    assert "success" in [entry["status"] for entry in tenant.entries(status="success")]


@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/chat/completions/", "/v1/chat"])
def test_an_unknown_address_is_a_404_in_the_apis_shape(product: Product, url: str, path: str) -> None:

    answer = httpx.post(f"{url}{path}", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_a_wrong_method_is_a_405_in_the_apis_shape(product: Product, url: str) -> None:

    answer = httpx.get(f"{url}/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics", "/v1/openapi.json", "/v1/docs"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_what_can_only_be_read_refuses_another_method_in_the_apis_shape(
    product: Product, url: str, path: str, method: str
) -> None:
    answer = httpx.request(method, f"{url}{path}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD"


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def raw(url: str, headers: str, body: bytes) -> bytes:
    """Send a request byte by byte as written here, and return what comes back first."""
    with connect(url) as sock:
        head = f"host: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode("latin-1") + body)
        return sock.recv(65_536)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
