"""Every way to write leaves a record; the ways are found in the registries."""

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin import site

from apps.audit.changes import HIDDEN_FIELDS
from apps.audit.models import ChangeRecord, Export
from apps.gateway.runtime import BACKGROUND
from tests.admin.cast import Cast as AdminCast
from tests.admin.cast import address, filled
from tests.admin.cast import gather as gather_admin
from tests.admin.conftest import static_files_as_they_are  # noqa: F401  (a fixture)
from tests.api.cast import Cast, gather, unique
from tests.api.collections import ORDERS, SAMPLES
from tests.exports.files import write_file
from tests.isolation.matrix import ADMIN_PAGES_THAT_WRITE, Address, addresses
from tests.isolation.rows import tables

WRITES_NOTHING = {"policies/evaluate"}
ROUTES = [one for one in addresses() if one.route.startswith("v1/admin/") and one.collection]
"""The routes of the API."""
WRITES = [
    (one, method, action)
    for one in ROUTES
    for method, action in getattr(one.view, "actions", {"post": "evaluate"} if "evaluate" in one.route else {}).items()
    if method in {"post", "put", "patch", "delete"}
]
BUTTONS = [one for one in addresses() if one.model is not None and one.kind in ADMIN_PAGES_THAT_WRITE]


@pytest.fixture(scope="module")
def cast() -> Any:
    yield gather()
    BACKGROUND.stop()


def records(of: Any) -> int:
    return ChangeRecord.objects.filter(actor_id=of.pk).count()


@pytest.mark.parametrize("write", WRITES, ids=lambda write: f"{write[1]}-{write[0].route}")
def test_each_route_that_writes_leaves_a_record(cast: Cast, write: tuple[Address, str, str]) -> None:
    address, method, action = write
    if address.route.endswith("evaluate"):
        assert address.route.removeprefix("v1/admin/") in WRITES_NOTHING
        return
    if address.collection == "alert-deliveries":
        return  # which nobody makes: see `tests/alerts/test_api.py`
    sample = next(one for one in [*SAMPLES, *ORDERS] if one.path == address.collection)
    body, url = sample.body(cast), address.collection
    if action != "create":
        made = cast.superadmin.made(url, body)
        url += f"/{made['id']}" + address.route.partition("[^/.]+)")[2].rstrip("$")
        body = body | sample.change if method != "patch" else sample.change
        if action == "cancel":
            Export.objects.filter(pk=made["id"]).update(state="waiting")
        _prepare(cast, action, url.rpartition("/")[0])
    before = records(cast.superadmin.user)
    answer = cast.superadmin.call(method.upper(), url, None if method == "delete" else _said(action, body))
    assert answer.status_code in (200, 201, 204), answer.content
    assert records(cast.superadmin.user) > before


def _said(action: str, body: dict[str, Any]) -> dict[str, Any]:
    if action == "keep_draft":
        return {"mode": "shadow"}
    if action == "rollback":
        return {"version": 1}
    return {} if action in ("revoke", "replace", "test", "renew", "cancel", "publish") else body


def _prepare(cast: Cast, action: str, url: str) -> None:
    """Do what an action needs to have been done before."""
    if action in ("publish", "discard_draft"):
        assert cast.superadmin.call("PUT", f"{url}/draft", {"mode": "off"}).status_code == 200
    if action == "rollback":
        assert cast.superadmin.patch(url, {"mode": "off"}).status_code == 200


def _publish(client: Any, row: Any, url: str) -> Any:
    assert filled(client, address(row, "change", row.pk), limit_usd="9", _draft="1").status_code == 302
    return client.post(url, {"publish": "1", "as_opened": client.get(url).context["stamp"]})


def _restore(client: Any, row: Any, url: str) -> Any:
    assert filled(client, address(row, "change", row.pk), limit_usd="9").status_code == 302
    url += "?version=1"
    return client.post(url, {"publish": "1", "as_opened": client.get(url).context["stamp"]})


DOINGS: dict[str, Callable[[Any, Any, str], Any]] = {
    "change": lambda client, row, url: filled(client, url, **_renamed(row)),
    "delete": lambda client, _, url: client.post(url, {"post": "yes"}),
    "suspend": lambda client, _, url: client.post(url, {"reason": "x"}),
    "activate": lambda client, _, url: client.post(url, {"reason": "x"}),
    "revoke_key": lambda client, _, url: client.post(url, {"reason": "x"}),
    "rotate_key": lambda client, _, url: client.post(url, {"grace": "0"}),
    "send_test": lambda client, _, url: client.post(url, {}),
    "new_secret": lambda client, _, url: client.post(url, {}),
    "send_again": lambda client, _, url: client.post(url, {}),
    "test": lambda client, _, url: client.post(url, {"route": "1", "model": [unique("model")]}),
    "cancel": lambda client, _, url: client.post(url),
    "download": lambda client, row, url: (write_file(row), client.post(url))[1],
    "draft": _publish,
    "restore": _restore,
    "set_password": lambda client, _, url: client.post(url, {"password": "long and new 1", "again": "long and new 1"}),
}


def _renamed(row: Any) -> dict[str, str]:
    names = {"orgs.user": "full_name", "gateway.modelroute": "model", "policies.price": "model"}
    return {names.get(row._meta.label_lower, "name"): unique("renamed")}


@pytest.fixture
def house() -> AdminCast:
    return gather_admin()


@pytest.mark.parametrize("page", BUTTONS, ids=lambda page: page.name)
def test_each_page_of_the_admin_that_writes_leaves_a_record(house: AdminCast, page: Address) -> None:
    of_kind = [row for row in house.home.rows if isinstance(row, page.model)]
    if not of_kind or (page.kind not in page.model._meta.default_permissions and page.kind in ("change", "delete")):
        exceptions = ("policies.Price", "audit.Export")
        assert page.model._meta.default_permissions == ("view",) or page.model._meta.label in exceptions, page
        return
    (row,), person = of_kind, house.people["superadmin"]
    if page.kind == "activate":
        type(row).objects.filter(pk=row.pk).update(state="suspended")
    if page.kind == "cancel":
        type(row).objects.filter(pk=row.pk).update(state="waiting")
    before = records(person)
    answer = DOINGS[page.kind](house.browser("superadmin"), row, address(row, page.kind, row.pk))
    assert answer.status_code in (200, 302)
    assert records(person) > before


ADDED: dict[str, Callable[[AdminCast], dict[str, str]]] = {
    "orgs.Organization": lambda house: {"name": unique("org")},
    "orgs.Application": lambda house: {"organization": str(house.home.organization.pk), "name": unique("app")},
    "orgs.ApiKey": lambda house: {"owner": "application", "application": str(house.home.application.pk), "name": "k"},
    "orgs.User": lambda house: {"username": unique("user")},
    "orgs.ProviderCredential": lambda house: {
        "name": unique("vendor"),
        "provider": "openai",
        "secret": "sk-0123456789",
    },
    "policies.Policy": lambda house: {
        "name": unique("policy"),
        "allow": "sim-*",
        "applies_to": "organization",
        "organization": str(house.home.organization.pk),
    },
    "policies.Price": lambda house: {"model": unique("m"), "input_nano_usd": "1", "output_nano_usd": "2"},
    "audit.SavedSearch": lambda house: {"name": unique("search")},
    "audit.Export": lambda house: {"kind": "records", "format": "jsonl", "reason": "asked for"},
    "gateway.ModelRoute": lambda house: {
        "organization": str(house.home.organization.pk),
        "model": unique("m"),
        "credential": str(house.home.credential.pk),
    },
    "alerts.Destination": lambda house: {
        "name": unique("on call"),
        "channel": "webhook",
        "url": "https://alerts.invalid/hook",
    },
}
"""What is typed into the form of something new."""


def test_everything_that_can_be_added_is_tried() -> None:
    assert {model._meta.label for model in site._registry if "add" in model._meta.default_permissions} == ADDED.keys()


@pytest.mark.parametrize("label", ADDED)
def test_each_form_for_something_new_leaves_a_record(house: AdminCast, label: str) -> None:
    person, before = house.people["superadmin"], records(house.people["superadmin"])
    url = address(apps.get_model(label), "add") + ("?kind=model_restriction" if label == "policies.Policy" else "")
    assert filled(house.browser("superadmin"), url, **ADDED[label](house)).status_code in (200, 302)
    assert records(person) == before + (2 if label == "audit.Export" else 1)  # it is ordered, and written at once


# --- What no record holds


def test_every_column_that_could_hold_a_secret_is_hidden_from_the_records() -> None:
    words = ("password", "secret", "digest", "token", "pepper", "cipher", "salt", "nonce", "private")
    counts = {"tokens_input", "tokens_output", "tokens_cached"}
    suspect = {
        one.attname
        for model in tables()
        for one in model._meta.concrete_fields
        if any(word in one.attname for word in words) and one.attname not in counts
    }
    assert suspect <= HIDDEN_FIELDS


def test_no_record_holds_a_secret_a_hash_of_one_or_a_ciphertext(cast: Cast) -> None:
    """Over every table: what its hidden columns hold, and what was typed or shown once, stands in no record."""
    secret, password = f"sk-{unique('secret')}", unique("a long password")
    api, there = cast.superadmin, str(cast.organization.id)
    vendor = {"organization": there, "name": unique("v"), "provider": "openai", "secret": secret}
    made = api.made("provider-credentials", vendor)
    api.patch(f"provider-credentials/{made['id']}", {"secret": f"{secret}-2"})
    user = api.made("users", {"username": unique("u"), "password": password})
    api.patch(f"users/{user['id']}", {"password": f"{password}-2"})
    key = api.made("keys", {"application": str(cast.application.id), "name": "k"})
    successor = api.made(f"keys/{key['id']}/rotate", {})
    typed = [secret, password, key["key"], successor["key"], key["key"].split("_")[2]]
    said = "\n".join(f"{one.before} {one.after} {one.object_name} {one.reason}" for one in ChangeRecord.objects.all())
    for model in tables():
        hidden = [one.attname for one in model._meta.concrete_fields if one.attname in HIDDEN_FIELDS - {"pepper_id"}]
        for row in model._base_manager.values_list(*hidden) if hidden else ():
            assert not [value for value in row if value and str(value) in said], model
    assert not [one for one in typed if one in said]
    assert "(set)" in said
