"""No address shows one organization to another, whoever asks and whatever they send, and none changes it."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pytest
from django.conf import settings
from django.template import Template
from django.test import override_settings

from apps.gateway.runtime import BACKGROUND
from apps.orgs import attempts
from apps.orgs.scoping import PATHS
from tests.admin.cast import Cast
from tests.admin.conftest import PLAIN_STATIC
from tests.isolation.houses import another_of_everything, neighbours, release_names
from tests.isolation.matrix import API, OTHERS, PAGES, SITE, Neighbours, Visit, addresses, unclassified
from tests.isolation.people import AT_THE_ADMIN, AT_THE_API, Knock, at_the_admin, at_the_api
from tests.isolation.rows import BEHIND, OF_NO_ORGANIZATION, crossing, digest_of, tables
from tests.isolation.traces import Traces, said

ADDRESSES = addresses()
MODELS = sorted({address.model._meta.label for address in ADDRESSES if address.model})
ROUTES = [address for address in ADDRESSES if address.route.startswith("v1/admin/")]
COLLECTIONS = sorted({route.collection for route in ROUTES})
OUTSIDERS = {"nobody", "stranger", "application"}
FOR_EVERYONE = {"/admin/login/", "/admin/logout/", "/admin/jsi18n/"}


@dataclass
class World:
    cast: Cast
    both: Neighbours
    traces: Traces
    requests: Counter[str]
    before: str
    """The digest of the other organization, which must stay."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    cast, both = neighbours()
    theirs = [row for rows in both.theirs.values() for row in rows]
    own = [row for rows in both.own.values() for row in rows]
    traces = Traces(both.foreign.marker, both.taken, theirs, own)
    world = World(cast, both, traces, Counter(), digest_of(both.foreign.organization.pk))
    logging.disable(logging.CRITICAL)  # each refused lookup would write its traceback
    with (
        override_settings(STORAGES=PLAIN_STATIC, STATIC_ROOT=settings.BASE_DIR / "static"),
        pytest.MonkeyPatch.context() as patch,
    ):
        for limit in ("OF_A_NAME_FROM_AN_ADDRESS", "OF_A_NAME", "FROM_AN_ADDRESS"):
            patch.setattr(attempts, limit, 10**6)  # everybody guesses here, from one address
        # Django's tests tell of each template that is rendered, with a copy of its context, which nobody here reads.
        patch.setattr(Template, "_render", lambda template, context: template.nodelist.render(context))
        yield world
    logging.disable(logging.NOTSET)
    BACKGROUND.stop()
    people = set(AT_THE_ADMIN) | set(AT_THE_API)
    print(f"\n{len(ADDRESSES)} addresses x {len(people)} people: {world.requests.total()} requests, {world.requests}")


def explore(world: World, person: str, knock: Knock, visits: Iterable[Visit]) -> None:
    """Make requests; nothing of the other organization may show, differ from nothing, or change."""
    for visit in visits:
        answer = answered(world, knock, visit)
        assert not world.traces.betrayed(answer, repr((visit.url, visit.data))), visit
        nothing = replace(visit, url=world.traces.nothings(visit.url), data=nothings(world.traces, visit.data))
        if visit.url.startswith("/admin/") and person in OUTSIDERS:
            assert_refused(visit, answer)
        elif (nothing.url, nothing.data) != (visit.url, visit.data) and not sees_what_an_admin_sees(visit, person):
            of_nothing = answered(world, knock, nothing)
            assert world.traces.plain(answer) == world.traces.plain(of_nothing), visit
            if world.both.taken in visit.data.values():
                release_names(world.both.home, world.both.taken)
    assert digest_of(world.both.foreign.organization.pk) == world.before
    assert crossing_home(world) == []


def sees_what_an_admin_sees(visit: Visit, person: str) -> bool:
    """Whether a page is the same to a person as to an admin, for whom its answers are compared with those of nothing.

    That halves what the matrix takes; that nothing betrays the other organization is looked at for everyone.
    """
    return visit.method == "GET" and visit.url.startswith("/admin/") and person in {"developer", "auditor"}


def assert_refused(visit: Visit, answer: str) -> None:
    """The admin sends everyone without a role to the login."""
    status, path = int(answer.partition("\n")[0]), visit.url.partition("?")[0]
    assert status in {302, 403} or path in FOR_EVERYONE, (status, visit)


def answered(world: World, knock: Knock, visit: Visit) -> str:
    response = knock(visit)
    world.requests[visit.method] += 1
    assert response.status_code < 500, visit
    assert visit.answers is None or response.status_code in visit.answers, (response.status_code, visit)
    return said(response)


def nothings(traces: Traces, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: nothings(traces, inner) for key, inner in value.items()}
    return traces.nothings(value) if isinstance(value, str) else value


def crossing_home(world: World) -> list[str]:
    return [stray for stray in crossing() if world.both.home.marker in stray]


# --- Everything is in it


def test_every_address_has_a_class_in_the_matrix() -> None:
    assert unclassified() == []


def test_every_class_of_the_matrix_is_of_an_address() -> None:
    assert {address.kind for address in ADDRESSES} == PAGES.keys() | SITE.keys() | API.keys() | OTHERS.keys()


def test_every_table_is_known_by_whose_its_rows_are(world: World) -> None:
    known = PATHS.keys() | BEHIND.keys()
    assert {model._meta.label_lower for model in tables()} == known | OF_NO_ORGANIZATION
    assert world.both.theirs.keys() == world.both.own.keys() == known


# --- The admin


@pytest.mark.parametrize("person", AT_THE_ADMIN)
@pytest.mark.parametrize("label", MODELS)
def test_the_pages_of_a_model_keep_organizations_apart(world: World, label: str, person: str) -> None:
    client, knock = at_the_admin(world.cast, person)
    own = [one for one in ADDRESSES if one.model is not None and one.model._meta.label == label]
    explore(world, person, knock, chain(*(PAGES[one.kind](world.both, one.model, client) for one in own)))


@pytest.mark.parametrize("person", AT_THE_ADMIN)
def test_the_admins_own_pages_keep_organizations_apart(world: World, person: str) -> None:
    _, knock = at_the_admin(world.cast, person)
    explore(world, person, knock, chain(*(visits(world.both) for visits in SITE.values())))


# --- The API


@pytest.mark.parametrize("person", AT_THE_API)
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_collection_keeps_organizations_apart(world: World, collection: str, person: str) -> None:
    knock = at_the_api(world.cast, person)
    own = [route for route in ROUTES if route.collection == collection]
    explore(world, person, knock, chain(*(visits(world.both, one) for one in own for visits in API[one.kind])))


@pytest.mark.parametrize("person", AT_THE_API)
def test_what_is_no_page_and_no_route_keeps_organizations_apart(world: World, person: str) -> None:
    explore(world, person, at_the_api(world.cast, person), chain(*(visits(world.both) for visits in OTHERS.values())))


# --- What another organization has shows in no number


@pytest.mark.parametrize("person", ["admin", "auditor"])
def test_what_another_organization_gets_changes_no_page_and_no_list(world: World, person: str) -> None:
    pages = [Visit("GET", f"/admin/{label.lower().replace('.', '/')}/") for label in MODELS]
    organization = world.both.home.organization.pk
    pages += [Visit("GET", "/admin/"), Visit("GET", f"/admin/orgs/organization/{organization}/change/")]
    lists = [route for route in ROUTES if "list" in route.kind]
    calls = [Visit("GET", "/" + one.route.replace("^", "").rstrip("$")) for one in lists]
    calls += [Visit("GET", "/v1/admin/metrics/usage"), Visit("GET", "/v1/admin/metrics/usage?group_by=model")]

    def look() -> list[str]:
        _, browse = at_the_admin(world.cast, person)
        answers = [answered(world, browse, visit) for visit in pages]
        answers += [answered(world, world_key, visit) for visit in calls]
        return [world.traces.plain(answer) for answer in answers]

    world_key = at_the_api(world.cast, person)
    before = look()
    another_of_everything(world.both.foreign)
    world.before = digest_of(world.both.foreign.organization.pk)
    assert look() == before
