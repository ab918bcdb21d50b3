"""Users: made, changed and given roles without anybody gaining what they should not."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import Application, Membership, User
from tests.admin.cast import PASSWORD, Cast, address, errors, filled, unique

NEW_PASSWORD = "quite another long one"


def new_user(client: Client, **changes: Any) -> Any:
    return filled(client, address(User, "add"), **changes)


def test_a_superadmin_makes_a_user_with_a_first_role(cast: Cast) -> None:
    name = unique("user")
    form = {"password": PASSWORD, "organization": str(cast.foreign.organization.pk), "role": "auditor"}
    assert new_user(cast.browser("superadmin"), username=name, **form).status_code == 302
    user = User.objects.get(username=name)
    assert user.check_password(PASSWORD)
    assert not user.is_superuser
    assert [(m.organization, m.role) for m in user.memberships.all()] == [(cast.foreign.organization, "auditor")]
    actions = ChangeRecord.objects.filter(object_name__contains=name).values_list("action", "object_type")
    assert set(actions) == {("create", "orgs.user"), ("create", "orgs.membership")}


def test_an_organizations_admin_makes_members_of_their_own_organization_alone(cast: Cast) -> None:
    name, client = unique("user"), cast.browser("admin")
    form = {"username": name, "organization": str(cast.home.organization.pk), "role": "developer"}
    assert new_user(client, **form).status_code == 302
    user = User.objects.get(username=cast.home.organization.username_of(name))
    assert not user.has_usable_password()
    assert list(user.roles()) == [cast.home.organization.pk]
    elsewhere = form | {"username": unique("user"), "organization": str(cast.foreign.organization.pk)}
    assert "organization" in errors(new_user(client, **elsewhere))
    assert "organization" in errors(new_user(client, **(elsewhere | {"organization": "", "role": ""})))


@pytest.mark.parametrize("stolen", [{"is_superuser": "on"}, {"role": "superadmin"}])
def test_an_organizations_admin_cannot_make_a_superadmin(cast: Cast, stolen: dict[str, str]) -> None:
    name = unique("user")
    form = {"username": name, "organization": str(cast.home.organization.pk), "role": "developer"}
    new_user(cast.browser("admin"), **(form | stolen))
    assert not User.objects.filter(username__startswith=name, is_superuser=True).exists()


def test_an_organizations_admin_changes_no_users_own_columns(cast: Cast) -> None:
    user, client = cast.people["developer"], cast.browser("admin")
    assert client.get(address(user, "change", user.pk)).status_code == 200
    for stolen in ({"is_superuser": "on"}, {"username": "x"}, {"memberships-0-role": "admin"}):
        assert client.post(address(user, "change", user.pk), stolen).status_code == 403
    assert client.post(address(user, "set_password", user.pk), {"password": NEW_PASSWORD}).status_code == 403


def test_a_role_beyond_the_organizations_is_refused_in_the_inline(cast: Cast) -> None:
    organization, client = cast.home.organization, cast.browser("admin")
    response = filled(client, address(organization, "change", organization.pk), **{"memberships-0-role": "superadmin"})
    assert response.status_code == 200
    assert not Membership.objects.filter(organization=organization, role="superadmin").exists()


@pytest.mark.parametrize("role", ["developer", "auditor"])
def test_who_is_no_admin_makes_nobody_a_member(onlookers: Cast, role: str) -> None:
    organization = onlookers.home.organization
    client = onlookers.browser(role)
    assert client.post(address(organization, "change", organization.pk), {"name": "x"}).status_code == 403
    assert client.post(address(User, "add"), {"username": "x"}).status_code == 403


def test_the_name_of_an_organization_is_the_platforms_to_change(cast: Cast) -> None:
    """Names are unique on the platform: who may try some could learn which there are."""
    organization, name = cast.home.organization, cast.home.organization.name
    filled(cast.browser("admin"), address(organization, "change", organization.pk), name=cast.foreign.organization.name)
    organization.refresh_from_db()
    assert organization.name == name


def test_a_superadmin_cannot_lock_themselves_out(cast: Cast) -> None:
    user, client = cast.people["superadmin"], cast.browser("superadmin")
    for name in ("is_active", "is_superuser"):
        assert name in errors(filled(client, address(user, "change", user.pk), **{name: None}))
    assert client.post(address(user, "delete", user.pk), {"post": "yes"}).status_code == 403


def test_nobody_with_keys_of_an_organization_is_made_a_superadmin(cast: Cast) -> None:
    user = cast.people["developer"]
    key = keys.issue(user=user, organization=cast.home.organization, name="known to its admins").row
    url, client = address(user, "change", user.pk), cast.browser("superadmin")
    assert "is_superuser" in errors(filled(client, url, is_superuser="on"))
    key.revoke()
    assert filled(client, url, is_superuser="on").status_code == 302


def test_a_password_is_set_by_a_superadmin_and_the_record_says_only_that(cast: Cast) -> None:
    user = cast.people["developer"]
    url, client = address(user, "set_password", user.pk), cast.browser("superadmin")
    assert client.post(url, {"password": NEW_PASSWORD, "again": NEW_PASSWORD}).status_code == 302
    user.refresh_from_db()
    assert user.check_password(NEW_PASSWORD)
    record = ChangeRecord.objects.get(object_id=user.pk)
    assert (record.before, record.after) == ({"password": "(set)"}, {"password": "(set anew)"})


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"password": NEW_PASSWORD, "again": "different"}, "again"),
        ({"password": "tiny pass", "again": "tiny pass"}, "password"),
        ({"password": "password1234", "again": "password1234"}, "password"),
    ],
)
def test_a_weak_or_mistyped_password_is_refused_at_the_field(onlookers: Cast, form: dict[str, str], field: str) -> None:
    user = onlookers.people["developer"]
    response = onlookers.browser("superadmin").post(address(user, "set_password", user.pk), form)
    assert field in response.context["question"].form.errors
    assert form["password"] not in response.content.decode()


def test_a_weak_password_of_a_new_user_is_refused_at_the_field(onlookers: Cast) -> None:
    found = errors(new_user(onlookers.browser("superadmin"), username=unique("u"), password="short"))
    assert "password" in found


def test_people_change_their_own_password_and_it_is_recorded(cast: Cast) -> None:
    client, user = cast.browser("auditor"), cast.people["auditor"]
    form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert client.post(reverse("admin:password_change"), form).status_code == 302
    user.refresh_from_db()
    assert user.check_password(NEW_PASSWORD)
    assert ChangeRecord.objects.filter(object_id=user.pk, actor_id=user.pk, action="change").count() == 1


def test_no_page_shows_a_password_hash(onlookers: Cast) -> None:
    user = onlookers.people["developer"]
    for page in ("change", "history", "set_password"):
        content = onlookers.browser("superadmin").get(address(user, page, user.pk)).content.decode()
        assert user.password not in content


def test_the_last_admin_is_not_taken_in_passing_but_by_a_superadmin(cast: Cast) -> None:
    organization, last = cast.home.organization, Membership.objects.get(user=cast.people["admin"])
    url = address(organization, "change", organization.pk)
    for browser, stays in (("admin", True), ("superadmin", False)):
        client = cast.browser(browser)
        forms = client.get(url).context["inline_admin_formsets"][0].formset.forms
        prefix = next(form.prefix for form in forms if form.instance == last)
        response = filled(client, url, **{f"{prefix}-role": "auditor"})
        assert ("no admin any more" in response.content.decode()) is stays
        last.refresh_from_db()
        assert last.role == ("admin" if stays else "auditor")
    (record,) = ChangeRecord.objects.filter(object_id=str(last.pk), action="change")
    assert record.reason == f"No admin is left in {organization}."


def test_the_page_of_a_person_leads_to_what_they_changed(cast: Cast) -> None:
    client, admin = cast.browser("auditor"), cast.people["admin"]
    filled(cast.browser("admin"), address(Application, "add"), name=(name := unique("app")))
    page = client.get(address(admin, "changes", admin.pk), follow=True)
    assert name in page.content.decode()
    assert cast.browser("developer").get(address(admin, "changes", admin.pk)).status_code == 403
