"""One tenant never sees another, and never reaches into it."""

import pytest
from django.contrib.contenttypes.models import ContentType
from django.urls import reverse

from apps.audit.models import RequestRecord
from apps.gateway.models import ModelRoute
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Policy
from tests.admin.cast import MEMBERS, Cast, address, errors, filled, pages, unique

KINDS = ("model_restriction", "rate_limit", "cost_cap", "guardrail")
members = pytest.mark.parametrize("role", MEMBERS)


def foreign_text(cast: Cast, content: bytes) -> str:
    """Return what a page says of the foreign house, with what is around it."""
    text, marker = content.decode(), cast.foreign.marker
    at = text.find(marker)
    return text[max(0, at - 200) : at + 80] if at >= 0 else ""


@members
def test_no_list_shows_a_foreign_row_or_offers_one_as_a_filter(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    seen = 0
    for model in pages():
        response = client.get(address(model, "changelist"))
        assert not foreign_text(onlookers, response.content), model
        seen += onlookers.home.marker in response.content.decode()
    assert seen > 5


@members
def test_no_search_finds_a_foreign_row(onlookers: Cast, role: str) -> None:
    client, secret_part = onlookers.browser(role), onlookers.foreign.marker.removeprefix("FOREIGN-")
    for model in pages():
        content = client.get(address(model, "changelist"), {"q": "FOREIGN"}).content.decode()
        assert secret_part not in content, model


@members
def test_no_filter_by_a_foreign_id_shows_a_foreign_row(onlookers: Cast, role: str) -> None:
    client, foreign = onlookers.browser(role), onlookers.foreign
    for model in pages():
        for query in (
            {"organization__id__exact": foreign.organization.pk},
            {"application__id__exact": foreign.application.pk},
            {"application": foreign.application.pk},
            {"budget__id__exact": foreign.budget.pk},
            {"id__exact": foreign.record.pk},
        ):
            response = client.get(address(model, "changelist"), query)
            assert not foreign_text(onlookers, response.content), (model, query)


@members
@pytest.mark.parametrize("page", ["change", "delete", "history"])
def test_the_pages_of_a_foreign_row_do_not_open_and_do_not_name_it(onlookers: Cast, role: str, page: str) -> None:
    client = onlookers.browser(role)
    for row in onlookers.foreign.rows:
        response = client.get(address(row, page, row.pk), follow=True)
        assert response.status_code in {200, 403, 404}
        assert not foreign_text(onlookers, response.content), row
        posted = client.post(address(row, page, row.pk), {"post": "yes", "name": "taken over"}, follow=True)
        assert not foreign_text(onlookers, posted.content), row
        row.refresh_from_db()


@members
def test_no_button_works_on_a_foreign_row(onlookers: Cast, role: str) -> None:
    client, foreign = onlookers.browser(role), onlookers.foreign
    for row, button in (
        (foreign.organization, "suspend"),
        (foreign.organization, "activate"),
        (foreign.application, "new_key"),
        (foreign.key, "revoke_key"),
        (foreign.key, "rotate_key"),
        (foreign.user, "set_password"),
    ):
        url = address(row, button, row.pk)
        for response in (client.get(url), client.post(url, {"grace": "0"})):
            assert response.status_code == 403, (row, button)
    foreign.key.refresh_from_db()
    assert foreign.key.state == "active"


def test_no_action_on_a_list_reaches_a_foreign_row(cast: Cast) -> None:
    foreign, client = cast.foreign, cast.browser("admin")
    for row in (foreign.application, foreign.key, foreign.policy, foreign.route, foreign.credential):
        chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
        response = client.post(address(row, "changelist"), chosen, follow=True)
        assert not foreign_text(cast, response.content)
        row.refresh_from_db()


@members
def test_no_form_offers_a_foreign_row_however_it_is_prefilled(onlookers: Cast, role: str) -> None:
    client, foreign = onlookers.browser(role), onlookers.foreign
    prefilled = {
        "organization": foreign.organization.pk,
        "application": foreign.application.pk,
        "api_key": foreign.key.pk,
        "user": foreign.user.pk,
        "credential": foreign.credential.pk,
    }
    forms = [(Policy, {"kind": kind}) for kind in KINDS]
    for model, query in [(Application, {}), (ApiKey, {}), (ModelRoute, {}), (ProviderCredential, {}), *forms]:
        response = client.get(address(model, "add"), prefilled | query)
        assert not foreign_text(onlookers, response.content), model


@members
def test_no_suggestion_names_a_foreign_row(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for app, model, field in (
        ("orgs", "application", "organization"),
        ("orgs", "apikey", "application"),
        ("orgs", "membership", "user"),
        ("policies", "policy", "application"),
        ("policies", "policy", "api_key"),
        ("policies", "policy", "user"),
        ("gateway", "modelroute", "credential"),
    ):
        query = {"app_label": app, "model_name": model, "field_name": field}
        for term in ("", "FOREIGN"):
            response = client.get(reverse("admin:autocomplete"), query | {"term": term})
            assert response.status_code in {200, 403}
            assert not foreign_text(onlookers, response.content), (model, field)


@members
def test_neither_front_page_nor_search_box_names_a_foreign_row(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for url in (reverse("admin:index"), reverse("admin:search") + "?s=a&extended=1", "/admin/orgs/", "/admin/audit/"):
        assert not foreign_text(onlookers, client.get(url).content), url


@members
def test_the_pages_of_ones_own_rows_name_no_foreign_row(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for row in onlookers.home.rows:
        for page in ("change", "history", "delete"):
            response = client.get(address(row, page, row.pk))
            assert not foreign_text(onlookers, response.content), (row, page)


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


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        (ApiKey, "digest__startswith"),
        (ApiKey, "user__password__startswith"),
        (User, "password__startswith"),
        (User, "memberships__organization__name__startswith"),
        (ProviderCredential, "encrypted_secret__startswith"),
        (Application, "organization__memberships__user__email__startswith"),
        (RequestRecord, "prompt_hash__startswith"),
    ],
)
def test_an_address_cannot_probe_columns_that_are_not_shown(onlookers: Cast, model: type, lookup: str) -> None:
    response = onlookers.browser("admin").get(address(model, "changelist"), {lookup: "a"})
    assert response.status_code == 400 or response.url.endswith("?e=1")


# --- Submitted ids


def test_an_application_cannot_be_made_in_a_foreign_organization(cast: Cast) -> None:
    url = address(Application, "add")
    found = errors(filled(cast.browser("admin"), url, organization=str(cast.foreign.organization.pk), name="mine"))
    assert "organization" in found
    assert not Application.objects.filter(organization=cast.foreign.organization, name="mine").exists()


def test_a_row_stays_with_its_organization_whatever_is_submitted(cast: Cast) -> None:
    home = cast.home
    Membership.objects.create(organization=cast.foreign.organization, user=cast.people["admin"], role="admin")
    for row in (home.application, home.policy, home.credential, home.route, home.key):
        filled(cast.browser("admin"), address(row, "change", row.pk), organization=str(cast.foreign.organization.pk))
        row.refresh_from_db()
        assert row.organization_id == home.organization.pk


def test_a_key_cannot_be_made_for_a_foreign_application(cast: Cast) -> None:
    url = address(ApiKey, "add")
    found = errors(filled(cast.browser("developer"), url, application=str(cast.foreign.application.pk), name="mine"))
    assert "application" in found


@pytest.mark.parametrize(
    ("level", "field", "house_row"),
    [
        ("organization", "organization", "organization"),
        ("application", "application", "application"),
        ("user", "user", "user"),
        ("key", "api_key", "key"),
    ],
)
def test_a_policy_cannot_stand_on_a_foreign_scope(cast: Cast, level: str, field: str, house_row: str) -> None:
    url = address(Policy, "add") + "?kind=model_restriction"
    target = str(getattr(cast.foreign, house_row).pk)
    changes = {"name": unique("p"), "allow": "*", "applies_to": level, field: target}
    assert field in errors(filled(cast.browser("admin"), url, **changes))


def test_an_organizations_admin_cannot_make_rows_of_the_platform(cast: Cast) -> None:
    client = cast.browser("admin")
    policy = {"name": unique("p"), "allow": "*", "applies_to": "platform", "organization": ""}
    assert "applies_to" in errors(filled(client, address(Policy, "add") + "?kind=model_restriction", **policy))
    route = {"model": "x", "credential": str(cast.home.credential.pk), "organization": ""}
    assert "organization" in errors(filled(client, address(ModelRoute, "add"), **route))
    credential = {"name": unique("c"), "provider": "simulated", "organization": ""}
    assert "organization" in errors(filled(client, address(ProviderCredential, "add"), **credential))


def test_a_route_cannot_lead_to_a_foreign_credential(cast: Cast) -> None:
    changes = {"model": "mine", "credential": str(cast.foreign.credential.pk)}
    assert "credential" in errors(filled(cast.browser("admin"), address(ModelRoute, "add"), **changes))


def test_a_foreign_user_cannot_be_made_a_member(cast: Cast) -> None:
    url = address(Organization, "change", cast.home.organization.pk)
    added = {
        "memberships-TOTAL_FORMS": "99",
        "memberships-98-user": str(cast.foreign.user.pk),
        "memberships-98-role": "developer",
    }
    response = filled(cast.browser("admin"), url, **added)
    assert response.status_code == 200
    assert not Membership.objects.filter(organization=cast.home.organization, user=cast.foreign.user).exists()


def test_an_inline_cannot_reach_a_foreign_membership_by_its_id(cast: Cast) -> None:
    url = address(Organization, "change", cast.home.organization.pk)
    theirs = Membership.objects.get(user=cast.foreign.user)
    filled(cast.browser("admin"), url, **{"memberships-0-id": str(theirs.pk), "memberships-0-DELETE": "on"})
    theirs.refresh_from_db()


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
    """The rules of the models forbid such rows; should one be there all the same, it stays."""
    stray = ModelRoute.objects.create(
        organization=cast.foreign.organization, model=cast.foreign.marker, credential=cast.home.credential
    )
    client, url = cast.browser("admin"), address(ProviderCredential, "delete", cast.home.credential.pk)
    assert not foreign_text(cast, client.get(url).content)
    assert client.post(url, {"post": "yes"}).status_code == 403
    stray.refresh_from_db()


def test_a_member_who_is_promoted_elsewhere_gains_nothing_here(cast: Cast) -> None:
    Membership.objects.create(
        organization=cast.foreign.organization, user=cast.people["auditor"], role=Role.ADMIN.value
    )
    url = address(Policy, "change", cast.home.policy.pk)
    assert cast.browser("auditor").post(url, {"name": "taken over"}).status_code == 403
