"""The table of roles is what the documentation, the admin and the API say, for each role, action and kind of object."""

from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest
from django.test import RequestFactory

from apps.orgs.roles import BEYOND, PERMISSIONS, Action, Role, allows, as_table
from apps.orgs.scoping import PATHS, SHARED, may
from controlplane import api_urls
from tests.api.cast import NOBODYS_ID, Cast, error_of, gather
from tests.api.collections import SAMPLES, Sample
from tests.docs.documents import document

ROLES = ("admin", "developer", "auditor")
CELLS = [(label, role, action) for label in PERMISSIONS for role in ROLES for action in Action]
WIDENED = {("orgs.apikey", "add"), ("orgs.apikey", "view"), ("orgs.user", "add")}
"""What people may do beyond the table: their own keys, and people as members; see `roles.BEYOND`."""


@pytest.fixture(scope="module")
def cast() -> Cast:
    return gather()


def collections() -> dict[str, Any]:
    return {prefix: viewset for prefix, viewset, _ in api_urls.router.registry}


def test_the_documentation_has_the_table() -> None:
    assert as_table() in document("docs/roles.md").text


def test_every_kind_of_object_that_people_reach_is_in_the_table() -> None:
    reached = {model._meta.label_lower for model in admin.site._registry}
    reached |= {viewset.model._meta.label_lower for viewset in collections().values()}
    assert reached <= PERMISSIONS.keys()
    assert PERMISSIONS.keys() == PATHS.keys() | SHARED
    assert BEYOND.keys() <= PERMISSIONS.keys()


def test_a_superadmin_may_do_whatever_anyone_may() -> None:
    assert all(allows(Role.SUPERADMIN, action, label) for label, _, action in CELLS)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_its_cell_says_in_its_organization_and_nothing_elsewhere(cast: Cast, role: str) -> None:
    person = cast.by_role(role).user
    for label, of, action in CELLS:
        if of == role:
            assert may(person, action, label, cast.organization.id) is allows(Role(role), action, label), (
                label,
                action,
            )
            assert not may(person, action, label, cast.elsewhere.id)


@pytest.mark.parametrize("role", ROLES)
def test_the_admin_takes_its_permissions_from_the_table(cast: Cast, role: str) -> None:
    request: HttpRequest = RequestFactory().get("/")
    request.user = cast.by_role(role).user
    for model, page in admin.site._registry.items():
        label = model._meta.label_lower
        for action in Action:
            said = getattr(page, f"has_{action}_permission")(request)
            says = allows(Role(role), action, label) and action.value in model._meta.default_permissions
            if (label, action.value) == ("orgs.user", "add"):
                says = allows(Role(role), Action.ADD, "orgs.membership")
            assert said is says, (label, action)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", sorted(collections()))
def test_a_route_opens_to_whom_the_table_lets_see(cast: Cast, path: str, role: str) -> None:
    label = collections()[path].model._meta.label_lower
    allowed = allows(Role(role), Action.VIEW, label) or (label, "view") in WIDENED
    answer, caller = cast.by_role(role).get(path), cast.by_role(role)
    assert answer.status_code == (200 if allowed else 403)
    assert caller.get(f"{path}/{NOBODYS_ID}").status_code == (404 if allowed else 403)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_route_writes_for_whom_the_table_lets_write(cast: Cast, sample: Sample, role: str) -> None:
    label = collections()[sample.path].model._meta.label_lower
    made, caller = cast.superadmin.made(sample.path, _of_the_organization(cast, sample)), cast.by_role(role)
    address = f"{sample.path}/{made['id']}"
    for action, answer in (
        (Action.CHANGE, caller.patch(address, {})),
        (Action.ADD, caller.post(sample.path, _of_the_organization(cast, sample))),
        (Action.DELETE, caller.delete(address)),
    ):
        of = "orgs.membership" if (label, action.value) == ("orgs.user", "add") else label
        elsewhere = sample.path == "organizations"  # the one that was made is not theirs to see
        if allows(Role(role), action, of) and not elsewhere:
            assert answer.status_code not in (403, 404), (action, answer.content)
        else:
            not_there = elsewhere and action is not Action.ADD
            error_of(answer, *((404, "NOT_FOUND") if not_there else (403, "FORBIDDEN")))


def _of_the_organization(cast: Cast, sample: Sample) -> dict[str, Any]:
    member = {"organization": str(cast.organization.id), "role": "developer"}
    shared = {"is_shared": True} if sample.path == "saved-searches" else {}
    return sample.body(cast) | (member if sample.path == "users" else shared)
