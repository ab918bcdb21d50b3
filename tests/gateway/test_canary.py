"""A listener inside the network, whose address is written into every field there is: nobody ever connects to it."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.db import transaction
from django.forms import CharField
from django.test import Client, override_settings
from django.urls import reverse

from apps.alerts.models import Delivery, Destination
from apps.alerts.upkeep import try_out
from apps.audit.changes import Actor
from apps.gateway.models import ModelRoute
from apps.gateway.pipeline import Answer
from apps.gateway.transport import Transport
from apps.orgs.models import ProviderCredential
from apps.policies.engine.kinds import Kind
from apps.policies.models import Policy, Price
from tests.admin.cast import Cast, address, filled, gather, unique
from tests.alerts.telling import an_alert, an_organization, destination, let_time_pass, tell_all
from tests.api.cast import gather as gather_api
from tests.api.collections import SAMPLES, Sample
from tests.encryption.kept import kept
from tests.gateway.house import House, Request, pipeline, read_all, run

REBOUND = "canary.example"
"""A name that looks public and leads inside, as whoever owns a domain may have it."""


class Canary:
    """Listens on loopback and counts who comes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.visits = 0
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def urls(self) -> list[str]:
        """Return its address as it can be written: plainly, mapped, by names, with and without TLS."""
        hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1", REBOUND]
        return [f"{scheme}://{host}:{self.port}/v1" for host in hosts for scheme in ("http", "https")]

    @property
    def url(self) -> str:
        """Return its address in the form that is let in furthest: only connecting tells where it leads."""
        return f"https://{REBOUND}:{self.port}/v1"

    def visit(self) -> None:
        """Connect as anybody could, to see that the canary would notice."""
        before = self.visits
        with socket.create_connection((REBOUND, self.port), timeout=10) as visitor:
            visitor.recv(1)
        assert self.visits == before + 1
        self.visits = before

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _count(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """A canary, where no network is allowed and where every proxy that an environment can name is the canary."""
    listening, resolve = Canary(), socket.getaddrinfo

    def rebind(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if host in (REBOUND, REBOUND.encode()) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listening.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with override_settings(PROVIDER_ALLOWED_NETWORKS=[]):
        listening.visit()
        yield listening
        listening.visit()
    listening.close()


# --- The admin


def texts_of(form: Any) -> list[str]:
    """Return the fields of a form that take a text."""
    return [bound.html_name for bound in form if isinstance(bound.field, CharField)]


def write_into(client: Client, url: str, text: str) -> int:
    """Submit a form with the text in all its fields, a filled one also with it in each of them; return how often."""
    page = client.get(url)
    if page.status_code != 200 or not page.context or "adminform" not in page.context:
        return 0
    form = page.context["adminform"].form
    values = {bound.html_name: bound.value() for bound in form if bound.value() not in (None, False)}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int)}
    management = {
        field.html_name: field.value()
        for inline in page.context["inline_admin_formsets"]
        for field in inline.formset.management_form
    }
    names = texts_of(form)
    alone = [] if form.instance._state.adding else [[name] for name in names]
    for written in (names, *alone):
        answer = client.post(url, plain | management | dict.fromkeys(written, text))
        assert answer.status_code in (200, 302, 403), (url, written, answer.status_code)
    return 1 + len(alone)


def forms(cast: Cast) -> list[str]:
    """Return the address of every form of the admin: to add, to change, and one for each kind of policy."""
    adds = [address(model, "add") for model in admin.site._registry if hasattr(model, "_meta")]
    kinds = [f"{address(Policy, 'add')}?kind={kind}" for kind in Kind]
    return [*adds, *kinds, *(address(row, "change", row.pk) for row in cast.home.rows)]


def test_no_field_of_the_admin_makes_anybody_connect(canary: Canary) -> None:
    cast = gather()
    client = cast.browser("superadmin")
    written = {url: write_into(client, url, canary.url) for url in forms(cast)}
    assert sum(written.values()) > 30
    assert written[address(ProviderCredential, "change", cast.home.credential.pk)] > 3
    for url in canary.urls():
        form = {"provider": "openai_compatible", "name": unique("canary"), "base_url": url, "secret": "sk-not-for-it"}
        stored = filled(client, address(ProviderCredential, "add"), **form).status_code == 302
        assert stored is url.startswith(f"https://{REBOUND}"), url
    for model in admin.site._registry:
        client.get(address(model, "changelist"), {"q": canary.url})
    Client().post(reverse("admin:login"), {"username": canary.url, "password": canary.url, "next": canary.url})
    assert canary.visits == 0


# --- The API


def spoiled(body: Any, text: str) -> Iterator[Any]:
    """Give the body with each of its texts replaced, one at a time, and with more fields that hold an address."""
    for name, value in body.items() if isinstance(body, dict) else enumerate(body):
        changed = spoiled(value, text) if isinstance(value, dict | list) else iter([text])
        for new in changed:
            copy = dict(body) if isinstance(body, dict) else list(body)
            copy[name] = new
            yield copy
    if isinstance(body, dict):
        for name in ("base_url", "url", "webhook", "callback_url", "metadata", "endpoint", "proxy"):
            yield {**body, name: text}


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_no_field_of_the_api_makes_anybody_connect(canary: Canary, sample: Sample) -> None:
    cast = gather_api()
    editor = cast.by_role(sample.editor)
    row = f"{sample.path}/{editor.made(sample.path, sample.body(cast))['id']}"
    for body in spoiled(sample.body(cast), canary.url):
        assert editor.post(sample.path, body).status_code in (201, 400, 403, 409)
    for body in spoiled(sample.change, canary.url):
        assert editor.patch(row, body).status_code in (200, 400, 403, 409)
    assert editor.get(sample.path, name=canary.url, q=canary.url, next=canary.url).status_code in (200, 400)
    assert canary.visits == 0


def test_no_spelling_of_the_address_makes_the_api_connect(canary: Canary) -> None:
    cast = gather_api()
    body = {"organization": str(cast.organization.id), "provider": "openai_compatible", "secret": "sk-" + "x" * 20}
    for n, url in enumerate(canary.urls()):
        answer = cast.admin.post("provider-credentials", {**body, "name": f"canary {n}", "base_url": url})
        assert answer.status_code == (201 if url.startswith(f"https://{REBOUND}") else 400), url
    assert canary.visits == 0


# --- Alerts


def test_no_address_of_a_destination_makes_anybody_connect(canary: Canary) -> None:
    """Neither entered, nor tried, nor when an alert is sent to one that was stored by a path that does not check."""
    cast, organization = gather_api(), an_organization()
    body = {"organization": str(cast.organization.id), "kinds": ["key_expiring"]}
    for number, url in enumerate(canary.urls()):
        lets_in = url.startswith(f"https://{REBOUND}")
        for channel in ("webhook", "slack"):
            named = {"name": f"canary {channel} {number}", "channel": channel, "url": url}
            answer = cast.admin.post("alert-destinations", {**body, **named})
            assert answer.status_code == (201 if lets_in else 400), url
            assert lets_in or "provider" not in answer.json()["error"]["message"]
    stored = [destination(organization, url="https://alerts.invalid/")]
    for url in canary.urls():
        stored += [destination(organization, channel, url=f"https://alerts.invalid/{channel}") for channel in CHANNELS]
        for row in stored[-2:]:
            with transaction.atomic():
                row.move(url) if row.channel == "webhook" else row.set_slack_url(url)
                row.save()
    an_alert(organization)
    tell_all()
    for row in stored:
        let_time_pass(row)
    tell_all()
    outcomes = {one.outcome for one in Delivery.objects.filter(organization_id=organization.pk)}
    assert Delivery.objects.filter(organization_id=organization.pk, attempts__gt=1).count() == len(stored)
    tested = Destination.objects.filter(organization=cast.organization)
    outcomes |= {try_out(row, Actor(None, "a person", "admin")).said for row in tested}
    assert len(outcomes) > 1
    assert not [said for said in outcomes if "127.0.0.1" in said or REBOUND in said]
    assert canary.visits == 0


CHANNELS = ("webhook", "slack")


# --- Inference


def prompts(url: str) -> list[dict[str, Any]]:
    """Return chats that name an address wherever a provider would fetch, call or call back one."""

    def said(*parts: Any, **fields: Any) -> dict[str, Any]:
        return {"model": "sim-echo", "messages": [{"role": "user", "content": list(parts)}], **fields}

    text = {"type": "text", "text": url}
    return [
        said(text),
        said(text, {"type": "image_url", "image_url": {"url": url}}),
        said(text, {"type": "image_url", "image_url": {"url": url, "detail": "high"}}, stream=True),
        said(text, {"type": "file", "file": {"file_data": url, "filename": url}}),
        said(text, {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}),
        said(text, metadata={"webhook": url, url[:60]: "x"}),
        said(text, user=url, service_tier=url, prompt_cache_key=url, safety_identifier=url),
        said(text, tools=[{"type": "function", "function": {"name": "f", "description": url, "parameters": {}}}]),
        said(text, tools=[{"type": "mcp", "server_url": url, "server_label": "x"}]),
        said(text, response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": url}}}),
        said(text, web_search_options={"user_location": {"type": "approximate", "approximate": {"city": url}}}),
        said(text, base_url=url, api_base=url, webhook_url=url),
        {"model": url, "messages": [{"role": "user", "content": url, "name": url}]},
        {"model": "sim-echo", "messages": [{"role": "tool", "tool_call_id": url, "content": url}]},
    ]


def call(folder: Path, key: str, bodies: list[dict[str, Any]]) -> list[tuple[int, bytes]]:
    """Send chats on a path that may connect to public addresses alone."""

    async def work() -> list[tuple[int, bytes]]:
        async with pipeline(folder, transport=Transport(simulated=True)) as built:
            answers: list[Answer] = [await built.complete_chat(Request(key, json.dumps(b).encode())) for b in bodies]
            return [(answer.status, await read_all(answer)) for answer in answers]

    found: list[tuple[int, bytes]] = run(work)
    return found


def test_no_field_of_a_prompt_makes_anybody_connect(canary: Canary, tmp_path: Path) -> None:
    house = House(allow=("*",))
    bodies = [body for url in (canary.url, f"http://127.0.0.1:{canary.port}/x.png") for body in prompts(url)]
    statuses = [status for status, _ in call(tmp_path, house.key, bodies)]
    assert statuses.count(200) > len(bodies) / 2
    assert set(statuses) <= {200, 400, 404}
    assert canary.visits == 0


def test_a_stored_address_that_leads_inside_is_not_connected_to_when_a_model_is_called(
    canary: Canary, tmp_path: Path
) -> None:
    """What was stored by a path that does not check, or was public when it was."""
    house = House(allow=("*",))
    rates = {"input_nano_usd": 10**9, "output_nano_usd": 10**9}
    Price.objects.get_or_create(provider="openai_compatible", model="canary-*", defaults=rates)
    for n, url in enumerate(canary.urls()):
        row = kept(house.organization, "sk-not-for-the-canary", provider="openai_compatible", base_url=url)
        ModelRoute.objects.create(organization=house.organization, model=f"canary-{n}", credential=row)
    hello = [{"role": "user", "content": "Hello"}]
    bodies = [{"model": f"canary-{n}", "messages": hello} for n in range(len(canary.urls()))]
    answers = call(tmp_path, house.key, bodies)
    assert {status for status, _ in answers} <= {502, 503}, answers
    assert all(b"127.0.0.1" not in body and REBOUND.encode() not in body for _, body in answers)
    assert canary.visits == 0
