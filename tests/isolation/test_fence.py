"""The database's own fence: whoever forgets the rule gets no row of another organization, and nobody gets any."""

import logging
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.test import Client, override_settings

from apps.audit import fence
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Membership, ProviderCredential
from apps.policies.models import Policy
from controlplane.database_roles import WRITTEN_BY_WORKERS
from tests.admin.cast import CAP, MEMBERS, Cast, House, gather
from tests.isolation.houses import furnish
from tests.isolation.rows import OF_NO_ORGANIZATION, rows_of
from tests.services.database_roles import as_the_server, there_are_roles

pytestmark = pytest.mark.usefixtures("fenced")

OF_NOBODY = {
    "audit_rollupstate": "how far everybody's records are summed up",
    "auth_group": "groups give no right here",
    "auth_group_permissions": "groups give no right here",
    "auth_permission": "Django's list of what there is",
    "django_admin_log": "Django's own, which nothing is written to: change records take its place",
    "django_content_type": "Django's list of what there is",
    "django_migrations": "of the schema",
    "django_session": "found by a secret that is the browser's alone",
    "orgs_configversion": "ids and numbers, which triggers of every scope write",
    "orgs_idempotencykey": "of a caller, and found by a digest of what the caller chose",
    "orgs_identity": "of a person: who that is must be found before anybody's scope is known",
    "orgs_user": "a person: who that is must be found before anybody's scope is known",
    "orgs_user_groups": "groups give no right here",
    "orgs_user_user_permissions": "permissions come from roles",
    "policies_price": "the platform's, for everybody",
}
"""The tables without a fence, and why."""
UNFENCED = {"orgs.configversion", "orgs.identity", "orgs.user"} | OF_NO_ORGANIZATION


@pytest.fixture
def fenced(postgres_only: None) -> None:
    if not there_are_roles():
        pytest.skip("needs a database server that lets its user make roles")


@pytest.fixture(scope="module")
def cast() -> Iterator[Cast]:
    cast = gather()
    for house in (cast.home, cast.foreign):
        furnish(house)
    logging.disable(logging.CRITICAL)  # a page fails here on purpose
    with override_settings(ROOT_URLCONF="tests.isolation.forgetful"):
        yield cast
    logging.disable(logging.NOTSET)


def fenced_rows(house: House) -> set[str]:
    """Return everything of a house that stands behind the fence, by table and id."""
    rows = [row for row in rows_of(house.organization.pk) if row._meta.label_lower not in UNFENCED]
    return {f"{row._meta.label_lower} {row.pk}" for row in rows}


def shown(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.content
    return {f"{label} {pk}" for label, ids in answer.json().items() if label not in UNFENCED for pk in ids}


def key_of(cast: Cast, person: str, **fields: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.issue(user=cast.people[person], name='x', **fields).text}"}


def test_every_table_is_fenced_or_has_a_reason() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, relrowsecurity, relispartition,"
            " EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid)"
            " FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        found = {name: (on, partition, policy) for name, on, partition, policy in cursor.fetchall()}
    open_tables = {name for name, (on, partition, policy) in found.items() if not on or not (policy or partition)}
    assert open_tables == set(OF_NOBODY)
    assert [name for name, (on, partition, _) in found.items() if partition and not on] == []
    with_organization = {
        model._meta.db_table
        for model in apps.get_models()
        if "organization_id" in {field.attname for field in model._meta.concrete_fields}
    }
    assert with_organization & set(OF_NOBODY) == set()


@pytest.mark.parametrize("person", MEMBERS)
def test_a_page_that_asks_for_everything_gets_its_own_organization(cast: Cast, person: str) -> None:
    got = shown(cast.browser(person).get("/forgetful/page/"))
    assert fenced_rows(cast.home) <= got
    assert fenced_rows(cast.foreign) & got == set()


@pytest.mark.parametrize("person", MEMBERS)
def test_a_route_that_asks_for_everything_gets_its_own_organization(cast: Cast, person: str) -> None:
    for fields in ({}, {"organization": cast.home.organization}):
        got = shown(Client().get("/forgetful/route/", headers=key_of(cast, person, **fields)))
        assert fenced_rows(cast.home) <= got
        assert fenced_rows(cast.foreign) & got == set()


def test_a_key_for_one_organization_does_not_reach_its_owners_other_one(cast: Cast) -> None:
    both = cast.people["outsider"]
    Membership.objects.create(organization=cast.home.organization, user=both, role="admin")
    try:
        bound = key_of(cast, "outsider", organization=cast.home.organization)
        assert fenced_rows(cast.foreign) & shown(Client().get("/forgetful/route/", headers=bound)) == set()
        free = shown(Client().get("/forgetful/route/", headers=key_of(cast, "outsider")))
        assert fenced_rows(cast.foreign) | fenced_rows(cast.home) <= free
    finally:
        Membership.objects.filter(organization=cast.home.organization, user=both).delete()


def test_nobody_and_who_is_in_no_organization_get_nothing(cast: Cast) -> None:
    for browser in (Client(), cast.browser("nobody")):
        got = browser.get("/forgetful/for-anybody/").json()
        assert {label for label, ids in got.items() if ids and label not in UNFENCED} <= platforms(browser, cast)


def platforms(browser: Client, cast: Cast) -> set[str]:
    """Return the kinds of rows that the platform lends everybody who is somebody."""
    if "sessionid" not in browser.cookies:
        return set()
    return {"orgs.datakey", "orgs.providercredential", "gateway.modelroute", *POLICIES}


POLICIES = {"policies.policy", "policies.policyversion", "policies.budget", "policies.budgetalert", "policies.spanpart"}
POLICIES |= {"policies.reservation"}


def test_a_superadmin_gets_everything(cast: Cast) -> None:
    everything = fenced_rows(cast.home) | fenced_rows(cast.foreign)
    assert everything <= shown(cast.browser("superadmin").get("/forgetful/page/"))
    assert everything <= shown(Client().get("/forgetful/route/", headers=key_of(cast, "superadmin")))


def test_an_answer_that_is_sent_piece_by_piece_is_made_in_the_scope_of_its_request(cast: Cast) -> None:
    answer = cast.browser("auditor").get("/forgetful/stream/")
    with as_the_server():
        got = b"".join(answer.streaming_content).decode().split()
    assert str(cast.home.record.pk) in got
    assert {str(cast.foreign.record.pk), str(cast.foreign.application.pk)} & set(got) == set()


def test_a_page_that_changes_what_it_finds_finds_nothing_of_another_organization(cast: Cast) -> None:
    answer = cast.browser("admin").get(f"/forgetful/rename/{cast.foreign.organization.pk}/")
    assert answer.json() == {"changed": 0}
    assert Application.objects.get(pk=cast.foreign.application.pk).name == cast.foreign.application.name


def test_requests_that_share_a_connection_never_share_a_scope(cast: Cast) -> None:
    own = {"admin": fenced_rows(cast.home), "outsider": fenced_rows(cast.foreign)}
    other = {"admin": own["outsider"], "outsider": own["admin"]}
    browsers = {name: cast.browser(name) for name in own}
    browsers["admin"].raise_request_exception = False

    def visit(name: str) -> None:
        if name == "failing":
            assert browsers["admin"].get("/forgetful/fail/").status_code == 500
        elif name == "stranger":
            assert shown(Client().get("/forgetful/for-anybody/")) == set()
        else:
            got = shown(browsers[name].get("/forgetful/page/"))
            assert own[name] <= got
            assert other[name] & got == set()

    order = ["admin", "failing", "stranger", "outsider", "failing", "admin", "outsider", "stranger"]
    random.shuffle(order)
    with ThreadPoolExecutor(1) as pool:  # one thread, and with it one connection
        for done in [pool.submit(visit, name) for name in order]:
            done.result()


SCOPES = [fence.NOTHING, fence.EVERYTHING, *(fence.scope_of([uuid4()]) for _ in range(2))]


def ask() -> None:
    """Compare what the database was told with what is asked for."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lcp.scope', true)")
        assert (cursor.fetchone()[0] or "") == fence.scope()


def go_in(stack: ExitStack) -> None:
    """Enter a scope, a transaction or savepoint, or both, in any order."""
    for way in random.sample([lambda: fence.within(random.choice(SCOPES)), transaction.atomic], random.choice((1, 2))):
        stack.enter_context(way())


def mishap() -> None:
    """Perhaps fail, in Python or in the database, or lose the connection."""
    match random.randrange(8):
        case 0 | 1:
            raise ZeroDivisionError
        case 2 | 3:
            connection.cursor().execute("SELECT 1 / 0")
        case 4 if not connection.in_atomic_block:
            connection.close()


def wander(depth: int) -> None:
    for _ in range(4):
        ask()
        with suppress(DatabaseError, ZeroDivisionError), ExitStack() as stack:
            go_in(stack)
            ask()
            if depth:
                wander(depth - 1)
            mishap()
    ask()


def test_the_database_always_knows_the_scope_that_is_asked_in_whatever_happened_to_transactions() -> None:
    with as_the_server():
        wander(3)


def test_what_the_platform_has_for_everybody_is_read_in_any_scope_and_written_in_none_but_its_own(cast: Cast) -> None:
    policy = Policy.objects.create(name=f"of all {cast.home.marker}", kind="cost_cap", config=CAP)
    credential = ProviderCredential.objects.create(name=f"of all {cast.home.marker}", provider="simulated")
    with as_the_server():
        with fence.within(fence.scope_of([cast.home.organization.pk])):
            assert Policy.objects.filter(pk=policy.pk).exists()
            assert ProviderCredential.objects.filter(pk=credential.pk).exists()
            assert Policy.objects.filter(pk=policy.pk).update(name="mine") == 0
            with pytest.raises(DatabaseError, match="row-level security"), transaction.atomic():
                Policy.objects.create(name="mine", kind="cost_cap", config=CAP)
        with fence.everything():
            assert Policy.objects.filter(pk=policy.pk).delete()[0] == 1
            assert ProviderCredential.objects.filter(pk=credential.pk).delete()[0] == 1


def test_a_row_for_another_organization_is_refused(cast: Cast) -> None:
    scope = fence.scope_of([cast.home.organization.pk])
    refused = pytest.raises(DatabaseError, match=r"row-level security|another organization")
    with as_the_server(), fence.within(scope):
        with refused, transaction.atomic():
            Application.objects.create(organization=cast.foreign.organization, name="planted")
        with refused, transaction.atomic():
            ApiKey.objects.create(organization=cast.home.organization, application=cast.foreign.application, name="x")


def test_a_connection_that_was_told_nothing_sees_nothing_and_the_partitions_are_nobodys(cast: Cast) -> None:
    with as_the_server():
        connection.ensure_connection()
        parameters = connection.get_connection_params()
    with psycopg.connect(**{**parameters, "cursor_factory": psycopg.Cursor}, autocommit=True) as bare:
        for table in ("orgs_organization", "audit_requestrecord", "policies_budget", "policies_spanpart"):
            assert bare.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bare.execute("SELECT FROM audit_requestrecord_default")
        bare.execute("SET lcp.scope = '*'")
        for table in sorted(WRITTEN_BY_WORKERS):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                bare.execute(f"DELETE FROM {table}".encode())
