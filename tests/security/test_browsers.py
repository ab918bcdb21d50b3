"""What browsers are told about the pages, and which other origin may call the API."""

import asyncio
import base64
import hashlib
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings as project
from django.contrib import admin
from django.test import Client, RequestFactory, override_settings

from controlplane import browsers
from tests.admin.cast import address
from tests.admin.conftest import PLAIN_STATIC
from tests.api.cast import Cast, gather
from tests.services.server import ROOT

FRONT_END = "https://console.example.com"


@pytest.fixture(scope="module")
def cast() -> Cast:
    return gather()


def page(path: str, user: Any = None) -> Any:
    client = Client(raise_request_exception=False)
    if user:
        client.force_login(user)
    with override_settings(STORAGES=PLAIN_STATIC, STATIC_ROOT=project.BASE_DIR / "static"):
        return client.get(path)


def directives(answer: Any) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer["content-security-policy"].split(";"))
    return {name: rest for name, _, rest in parts}


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/admin/nonsense/", "/nonsense", "/v1/admin/keys"])
def test_a_page_runs_no_script_and_takes_no_style_but_this_servers(cast: Cast, path: str) -> None:
    policy = directives(page(path, cast.admin.user))
    assert policy["script-src"] == ("'self' 'unsafe-eval'" if path.startswith("/admin/") else "'self'")
    assert policy["style-src"] == f"'self' '{project.ERROR_PAGE_STYLE}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["frame-src"] == "'none'"
    assert "unsafe-inline" not in str(policy)


def test_the_pages_of_the_admin_hold_no_style_element_and_no_style_attribute(cast: Cast) -> None:
    from apps.orgs.models import Application

    for path in ("/admin/", "/admin/login/", address(Application, "changelist"), address(Application, "add")):
        text = page(path, cast.admin.user).content.decode()
        assert not re.search(r"<style|\\sstyle=|\\son\\w+=|javascript:", text), path


def test_the_error_pages_style_is_the_one_that_the_policy_names() -> None:
    style = re.search(r"<style>(.*?)</style>", (ROOT / "templates/error.html").read_text(), re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"sha256-{digest}" == project.ERROR_PAGE_STYLE


def test_the_stylesheet_has_every_colour_of_the_theme() -> None:
    text = (ROOT / "static/control_plane/theme.css").read_text()
    site: Any = admin.site
    for name, weights in site._get_colors("COLORS", RequestFactory().get("/")).items():
        for weight, value in weights.items():
            assert f"--color-{name}-{weight}: {value};" in text
    assert f"--border-radius: {site._get_config('BORDER_RADIUS')};" in text


@pytest.mark.parametrize("path", ["/admin/login/", "/nonsense", "/v1/openapi.json"])
def test_every_answer_says_what_browsers_may_not_do(path: str) -> None:
    answer = page(path)
    assert answer["x-frame-options"] == "DENY"
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] == answer["cross-origin-opener-policy"] == "same-origin"
    assert answer["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in answer["permissions-policy"]
    assert "*" not in answer["permissions-policy"]


IN_PRODUCTION = """
import django
django.setup()
from django.conf import settings
from django.test import Client
from tests.admin.conftest import PLAIN_STATIC
settings.STORAGES = PLAIN_STATIC
answer = Client().get("/admin/login/", secure=True, headers={"host": "llm.example.com"})
print(answer.status_code, answer["strict-transport-security"])
for cookie in answer.cookies.values():
    print(cookie.OutputString())
print(Client().get("/admin/login/", headers={"host": "llm.example.com"}).headers["location"])
print(Client().get("/admin/login/", secure=True, headers={"host": "evil.example"}).status_code)
"""


def test_in_production_cookies_are_this_hosts_alone_and_nothing_goes_over_plain_http(tmp_path: Any) -> None:
    ring = "a:" + base64.b64encode(bytes(range(32))).decode()
    environment = {
        **os.environ,
        "ENVIRONMENT": "production",
        "SECRET_KEY": "x" * 20 + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
        "ALLOWED_HOSTS": "llm.example.com",
        "KEY_PEPPERS": ring,
        "ENCRYPTION_KEYS": ring,
        "PASSWORD_LOGIN": "true",
    }
    run = subprocess.run(
        [sys.executable, "-c", IN_PRODUCTION], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert lines[0] == "200 max-age=31536000; includeSubDomains; preload"
    assert lines[-2:] == ["https://llm.example.com/admin/login/", "400"]
    assert len(lines) > 3
    for cookie in lines[1:-2]:
        assert cookie.startswith("__Host-")
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie


# --- Cross-origin requests


@pytest.fixture
def with_front_end(settings: Any) -> None:
    settings.FRONT_END_URL = FRONT_END


def ask(origin: str, path: str = "/v1/admin/keys", method: str = "OPTIONS", **headers: str) -> Any:
    client = Client(raise_request_exception=False)
    return client.generic(method, path, headers={"origin": origin, **headers})


def test_the_front_end_may_send_what_the_api_takes(with_front_end: None) -> None:
    for path in ("/v1/admin/keys", "/v1/chat/completions"):
        answer = ask(FRONT_END, path, **{"access-control-request-method": "POST"})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer["access-control-allow-origin"] == FRONT_END
        assert answer["access-control-allow-credentials"] == "true"
        allowed = {name.strip().lower() for name in answer["access-control-allow-headers"].split(",")}
        assert allowed >= {"authorization", "content-type", "idempotency-key", "if-match"}
        assert "PATCH" in answer["access-control-allow-methods"]
        assert "Origin" in answer["vary"]


def test_the_front_end_may_read_answers_and_their_headers_refusals_too(with_front_end: None, cast: Cast) -> None:
    for key, status in ((cast.admin.key, 200), ("lcp_none", 401)):
        answer = ask(FRONT_END, method="GET", authorization=f"Bearer {key}")
        assert answer.status_code == status
        assert answer["access-control-allow-origin"] == FRONT_END
        assert {"ETag", "x-request-id"} <= set(answer["access-control-expose-headers"].split(", "))
        assert "Origin" in answer["vary"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://console.example.com", "https://console.example.com.evil.example",
     "https://console.example.com:444", "https://console.example.com/", "HTTPS://CONSOLE.EXAMPLE.COM", "*"],
)  # fmt: skip
def test_any_other_origin_gets_nothing(with_front_end: None, cast: Cast, origin: str) -> None:
    asked = ask(origin, **{"access-control-request-method": "POST"})
    sent = ask(origin, method="GET", authorization=f"Bearer {cast.admin.key}")
    for answer in (asked, sent):
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert "Origin" in answer["vary"]


def test_the_pages_are_nobody_elses_to_read(with_front_end: None) -> None:
    for path in ("/admin/login/", "/nonsense", "/metrics"):
        for method in ("GET", "OPTIONS"):
            answer = ask(FRONT_END, path, method, **{"access-control-request-method": "GET"})
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_without_a_front_end_nobody_elses_page_calls_the_api(cast: Cast) -> None:
    answer = ask(FRONT_END, **{"access-control-request-method": "POST"})
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://a.example", "https://a.example"),
        ("https://A.example:443/app", "https://a.example"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("a.example", ""),
        ("*", ""),
        ("null", ""),
        ("", ""),
    ],
)
def test_the_front_ends_origin_is_written_as_browsers_write_it(settings: Any, address: str, origin: str) -> None:
    settings.FRONT_END_URL = address
    assert browsers.front_end() == origin


def test_the_plain_door_says_the_same_once(with_front_end: None) -> None:
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})

    async def django(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Vary", b"Accept, Origin")]})

    for behind, origin in ((plain, FRONT_END), (plain, "https://evil.example"), (django, FRONT_END)):
        scope = {"path": "/v1/chat/completions", "method": "POST", "headers": [(b"origin", origin.encode())]}
        asyncio.run(browsers.CrossOriginDoor(behind)(scope, None, keep))  # type: ignore[arg-type]
    allowed, refused, answered = (dict(message["headers"]) for message in sent)
    assert allowed[b"access-control-allow-origin"] == FRONT_END.encode()
    assert allowed[b"vary"] == refused[b"vary"] == b"Origin"
    assert b"access-control-allow-origin" not in refused
    assert b"access-control-allow-origin" not in answered
