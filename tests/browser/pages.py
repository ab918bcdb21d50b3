"""Every page of the admin that a person can open, out of the resolver: a new page is among them without being named.

What the resolver cannot say (an address with a parameter that is no row's id, a page that a query makes another) stands
in `VALUES` and `BESIDES`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.test import Client

from apps.orgs.models import User
from apps.policies.engine.kinds import Kind
from tests.admin.cast import House
from tests.isolation.matrix import Address, addresses

PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
VALUES = {
    "organization_id": lambda house: str(house.organization.pk),
    "request_id": lambda house: str(house.record.pk),
    "subject": lambda house: "application",
    "subject_id": lambda house: str(house.application.pk),
}
"""What stands for the parameters of an address that are not the id of a row of its model."""
BESIDES = (
    *(f"/admin/policies/policy/add/?kind={kind.value}" for kind in Kind),
    "/admin/orgs/application/?q=nothing+has+this+name",
    "/admin/orgs/application/?all=",
    "/v1/docs",
    "/admin/there/is/no/such/page/",
)
LEAD_AWAY = {"logout", "jsi18n", "autocomplete", "catch_all"}
OF_EACH_MODEL = {"changelist", "add", "change"}
"""The kinds of pages that differ from model to model. Any other kind is one template, opened where it comes first."""


def openable(people: Sequence[tuple[User, Client]], house: House) -> list[tuple[User, str]]:
    """Return the addresses that answer with a page, and not with another address or with data, each with the first of
    ``people`` who may open it.
    """
    found: dict[str, tuple[User, str]] = {}
    for person, client in people:
        for address, page in _addresses(house):
            if page not in found and _is_page(client.get(address)):
                found[page] = person, address
    return [*found.values(), *((people[0][0], address) for address in BESIDES)]


def nameless() -> list[str]:
    """Return the routes with a parameter for which nothing here stands."""
    return [
        one.route
        for one in _of_the_admin()
        if one.model is None and set(PARAMETER.findall(one.route)) - VALUES.keys() - {"app_label"}
    ]


def _addresses(house: House) -> Iterator[tuple[str, str]]:
    """Give addresses, each with what it is a page of."""
    rows = {type(row): row for row in _rows(house)}
    for one in _of_the_admin():
        known = {name: stands(house) for name, stands in VALUES.items()}
        if one.model in rows:
            known["object_id"] = str(rows[one.model].pk)
        if known.keys() >= set(PARAMETER.findall(one.route)):
            yield "/" + _filled(one.route, known), one.route if one.kind in OF_EACH_MODEL else one.kind


def _filled(route: str, known: dict[str, str]) -> str:
    return PARAMETER.sub(lambda match: known[match[1]], route)


def _rows(house: House) -> Iterable[Any]:
    """Give a row of each model that has pages: the house's own, or else the newest that there is."""
    own = {type(row): row for row in house.rows}
    for model in admin.site._registry:
        row = own.get(model) or _of_the_house(model, house) or model._base_manager.order_by("pk").last()
        if row is not None:
            yield row


def _of_the_house(model: Any, house: House) -> Any:
    if not any(field.attname == "organization_id" for field in model._meta.concrete_fields):
        return None
    return model._base_manager.filter(organization_id=house.organization.pk).order_by("pk").last()


def _of_the_admin() -> list[Address]:
    return [
        one
        for one in addresses()
        if one.route.startswith("admin/") and one.kind not in LEAD_AWAY and not set(one.route) & set("^$\\(")
    ]


def _is_page(answer: Any) -> bool:
    """Whether an answer is a page: no other address, no data, and no part of a page."""
    is_html = answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    return is_html and not answer.streaming and b"<html" in answer.content
