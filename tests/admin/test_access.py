"""Who may open what."""

from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from apps.orgs.models import ApiKey, Application, Organization
from apps.orgs.roles import Action
from apps.orgs.scoping import may
from tests.admin.cast import PASSWORD, ROLES, Cast, address, pages

PAGES = [model._meta.label for model in pages()]


def by_label(label: str) -> Any:
    return next(model for model in pages() if model._meta.label == label)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("label", PAGES)
def test_a_list_opens_for_exactly_those_whose_role_may_see_it(onlookers: Cast, role: str, label: str) -> None:
    allowed = may(onlookers.people[role], Action.VIEW, label.lower())
    response = onlookers.browser(role).get(address(by_label(label), "changelist"))
    assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize("role", ROLES)
def test_the_page_of_a_row_opens_for_exactly_those_whose_role_may_see_it(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for row in onlookers.home.rows:
        allowed = may(onlookers.people[role], Action.VIEW, row._meta.label_lower)
        response = client.get(address(row, "change", row.pk))
        assert response.status_code == (200 if allowed else 403), row


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("label", PAGES)
def test_an_add_page_opens_for_exactly_those_whose_role_may_add(onlookers: Cast, role: str, label: str) -> None:
    model, person = by_label(label), onlookers.people[role]
    allowed = "add" in model._meta.default_permissions and may(person, Action.ADD, label.lower())
    if label == "orgs.User":
        allowed = may(person, Action.ADD, "orgs.membership")
    response = onlookers.browser(role).get(address(model, "add"))
    assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["admin:index", "admin:password_change"])
def test_everyone_with_a_role_has_a_front_page_and_may_change_their_password(
    onlookers: Cast, role: str, name: str
) -> None:
    assert onlookers.browser(role).get(reverse(name)).status_code == 200


@pytest.mark.parametrize("role", ROLES)
def test_the_sidebar_offers_only_pages_that_open(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    groups = client.get(reverse("admin:index")).context["sidebar_navigation"]
    links = [item["link"] for group in groups for item in group["items"]]
    assert len(links) > 3
    assert [client.get(link).status_code for link in links] == [200] * len(links)


def test_a_user_without_any_role_is_not_let_in(onlookers: Cast) -> None:
    response = onlookers.browser("nobody").get(reverse("admin:index"))
    assert response.status_code == 302
    assert reverse("admin:login") in response.url


def test_a_suspended_user_is_not_let_in(cast: Cast) -> None:
    client = cast.browser("admin")
    cast.people["admin"].is_active = False
    cast.people["admin"].save()
    assert client.get(reverse("admin:index")).status_code == 302


@pytest.mark.parametrize("role", ROLES)
def test_a_password_logs_in_and_leads_to_the_front_page(onlookers: Cast, role: str) -> None:
    login = {"username": onlookers.people[role].username, "password": PASSWORD}
    response = Client().post(reverse("admin:login"), login, follow=True)
    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert response.status_code == 200


@override_settings(PASSWORD_LOGIN=False)
def test_no_password_logs_in_where_passwords_are_turned_off(onlookers: Cast) -> None:
    login = {"username": onlookers.people["admin"].username, "password": PASSWORD}
    response = Client().post(reverse("admin:login"), login)
    assert response.status_code == 200
    assert response.context["form"].errors


def test_the_pages_that_nobody_may_change_are_read_only_for_superadmins_too(onlookers: Cast) -> None:
    client, home = onlookers.browser("superadmin"), onlookers.home
    for row in (home.record, home.budget, home.entry, home.alert):
        assert client.post(address(row, "change", row.pk), {}).status_code in {200, 403}
        assert client.post(address(row, "delete", row.pk), {"post": "yes"}).status_code == 403
        row.refresh_from_db()


@pytest.mark.parametrize("label", PAGES)
def test_no_address_that_is_mistyped_breaks_a_page(onlookers: Cast, label: str) -> None:
    client, model = onlookers.browser("superadmin"), by_label(label)
    for query in (
        {"q": "a\0"},
        {"model_name": "\0"},
        {"timestamp_from": "0001-01-01", "timestamp_to": "9999-12-31"},
        {"p": "-7", "o": "99.z"},
        {"p": "x"},
        {"id__exact": "not-an-id"},
    ):
        assert client.get(address(model, "changelist"), query, follow=True).status_code == 200
    for page in ("change", "history", "delete"):
        assert client.get(address(model, page, "not-an-id")).status_code in {302, 403, 404}


def test_no_button_breaks_on_an_id_that_is_none(onlookers: Cast) -> None:
    for row, button in ((Organization, "suspend"), (Application, "new_key"), (ApiKey, "revoke_key")):
        url = address(row, button, "not-an-id")
        assert onlookers.browser("superadmin").get(url).status_code == 403
    query = {"app_label": "orgs", "model_name": "apikey", "field_name": "application", "term": "\0"}
    assert onlookers.browser("admin").get(reverse("admin:autocomplete"), query).status_code == 404
    assert onlookers.browser("admin").get(reverse("admin:search"), {"s": "a", "page": "x"}).status_code == 404


def test_a_role_taken_away_shuts_the_admin_at_once(cast: Cast) -> None:
    client = cast.browser("developer")
    assert client.get(reverse("admin:index")).status_code == 200
    cast.people["developer"].memberships.all().delete()
    assert client.get(reverse("admin:index")).status_code == 302
