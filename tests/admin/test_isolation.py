"""One tenant never reaches into another, even with a role in both. What each address shows is `tests/isolation`'s."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.contenttypes.models import ContentType
from django.db import connection

from apps.gateway.models import ModelRoute
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Policy
from tests.admin.cast import Cast, address, errors, filled, unique


def foreign_text(cast: Cast, content: bytes) -> str:
    """Return what a page says of the foreign house, with what is around it."""
    text, marker = content.decode(), cast.foreign.marker
    at = text.find(marker)
    return text[max(0, at - 200) : at + 80] if at >= 0 else ""


def test_no_address_looks_up_any_object_by_its_type_and_id(onlookers: Cast) -> None:
    content_type = ContentType.objects.get_for_model(Organization)
    url = f"/admin/r/{content_type.pk}/{onlookers.foreign.organization.pk}/"
    assert onlookers.browser("superadmin").get(url).status_code == 404


def test_a_user_of_two_organizations_is_shown_with_the_role_in_ones_own_alone(cast: Cast) -> None:
    Membership.objects.create(organization=cast.foreign.organization, user=cast.people["developer"], role="admin")
    client = cast.browser("auditor")
    for url in (address(User, "changelist"), address(User, "change", cast.people["developer"].pk)):
        content = client.get(url).content
        assert not foreign_text(cast, content)
        assert cast.home.marker in content.decode()


# --- Submitted ids


def test_a_row_stays_with_its_organization_whatever_is_submitted(cast: Cast) -> None:
    home = cast.home
    Membership.objects.create(organization=cast.foreign.organization, user=cast.people["admin"], role="admin")
    for row in (home.application, home.policy, home.credential, home.route, home.key):
        filled(cast.browser("admin"), address(row, "change", row.pk), organization=str(cast.foreign.organization.pk))
        row.refresh_from_db()
        assert row.organization_id == home.organization.pk


def test_an_organizations_admin_cannot_make_rows_of_the_platform(cast: Cast) -> None:
    client = cast.browser("admin")
    policy = {"name": unique("p"), "allow": "*", "applies_to": "platform", "organization": ""}
    assert "applies_to" in errors(filled(client, address(Policy, "add") + "?kind=model_restriction", **policy))
    route = {"model": "x", "credential": str(cast.home.credential.pk), "organization": ""}
    assert "organization" in errors(filled(client, address(ModelRoute, "add"), **route))
    credential = {"name": unique("c"), "provider": "simulated", "organization": ""}
    assert "organization" in errors(filled(client, address(ProviderCredential, "add"), **credential))


def test_a_right_in_one_organization_is_none_in_another(cast: Cast) -> None:
    """An admin here who is an auditor there sees there, and changes nothing there."""
    Membership.objects.create(organization=cast.foreign.organization, user=cast.people["admin"], role="auditor")
    client, foreign = cast.browser("admin"), cast.foreign
    for row in (foreign.application, foreign.key, foreign.policy, foreign.route, foreign.credential):
        assert client.get(address(row, "change", row.pk)).status_code == 200
        assert client.post(address(row, "change", row.pk), {"name": "taken over"}).status_code == 403
        assert client.post(address(row, "delete", row.pk), {"post": "yes"}).status_code == 403
        row.refresh_from_db()
    new = {"organization": str(foreign.organization.pk), "name": "mine"}
    assert "organization" in errors(filled(client, address(Application, "add"), **new))
    key = {"application": str(foreign.application.pk), "name": "mine"}
    assert "application" in errors(filled(client, address(ApiKey, "add"), **key))
    assert not ApiKey.objects.filter(organization=foreign.organization, name="mine").exists()


def test_a_deletion_that_would_reach_into_another_organization_is_refused_without_naming_it(cast: Cast) -> None:
    """The database forbids such rows on PostgreSQL; should one be there from before, it stays."""
    route = cast.foreign.route
    with unguarded("gateway_modelroute"):
        ModelRoute.objects.filter(pk=route.pk).update(credential=cast.home.credential)
    client, url = cast.browser("admin"), address(ProviderCredential, "delete", cast.home.credential.pk)
    assert not foreign_text(cast, client.get(url).content)
    assert client.post(url, {"post": "yes"}).status_code == 403
    route.refresh_from_db()


@contextmanager
def unguarded(table: str) -> Iterator[None]:
    """Write as before there was a trigger; the database is this process's own."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def test_a_member_who_is_promoted_elsewhere_gains_nothing_here(cast: Cast) -> None:
    Membership.objects.create(
        organization=cast.foreign.organization, user=cast.people["auditor"], role=Role.ADMIN.value
    )
    url = address(Policy, "change", cast.home.policy.pk)
    assert cast.browser("auditor").post(url, {"name": "taken over"}).status_code == 403
