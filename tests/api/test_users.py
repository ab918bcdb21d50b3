import pytest

from apps.audit.models import ChangeRecord
from apps.orgs.models import Membership, User
from tests.api.cast import Cast, error_of, unique

PASSWORD = "correct horse battery staple"


def test_a_password_is_set_and_never_shown(cast: Cast) -> None:
    made = cast.superadmin.made("users", {"username": unique("pw"), "password": PASSWORD})
    assert "password" not in made
    assert User.objects.get(id=made["id"]).check_password(PASSWORD)
    cast.superadmin.patch(f"users/{made['id']}", {"password": PASSWORD + "!"})
    assert User.objects.get(id=made["id"]).check_password(PASSWORD + "!")
    change = ChangeRecord.objects.get(object_id=made["id"], action="change")
    assert change.after == {"password": "(set anew)"}
    assert PASSWORD not in str(list(ChangeRecord.objects.filter(object_id=made["id"]).values()))


def test_a_user_without_password_cannot_log_in_by_password(cast: Cast) -> None:
    made = cast.superadmin.made("users", {"username": unique("pw")})
    assert not User.objects.get(id=made["id"]).has_usable_password()


@pytest.mark.parametrize("password", ["short", "password1234", ""])
def test_a_weak_password_is_refused(cast: Cast, password: str) -> None:
    answer = cast.superadmin.post("users", {"username": unique("pw"), "password": password})
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "password"


def test_an_admin_makes_users_in_the_own_organization(cast: Cast) -> None:
    body = {"username": unique("new"), "organization": str(cast.organization.id), "role": "admin"}
    made = cast.admin.made("users", body)
    assert made["memberships"] == [{"organization": str(cast.organization.id), "role": "admin"}]
    membership = Membership.objects.get(user=made["id"])
    for changed in (made["id"], str(membership.id)):
        assert ChangeRecord.objects.get(object_id=changed).actor_id == cast.admin.user.id


def test_an_admin_makes_users_nowhere_else(cast: Cast) -> None:
    body = {"username": unique("new")}
    for more, param in [
        ({}, "organization"),
        ({"organization": str(cast.elsewhere.id), "role": "auditor"}, "organization"),
        ({"organization": str(cast.organization.id)}, "organization"),
        ({"role": "admin"}, "role"),
        ({"organization": str(cast.organization.id), "role": "superadmin"}, "role"),
    ]:
        assert error_of(cast.admin.post("users", body | more), 400, "INVALID_REQUEST")["param"] == param
    assert not User.objects.filter(username=body["username"]).exists()


def test_an_admin_makes_no_superadmin(cast: Cast) -> None:
    body = {"username": unique("new"), "organization": str(cast.organization.id), "role": "admin"}
    error_of(cast.admin.post("users", body | {"is_superadmin": True}), 403, "FORBIDDEN")
    error_of(cast.admin.patch(f"users/{cast.admin.user.id}", {"is_superadmin": True}), 403, "FORBIDDEN")
    assert (
        error_of(cast.admin.post("users", body | {"is_superuser": True}), 400, "INVALID_REQUEST")["param"]
        == "is_superuser"
    )
    assert not User.objects.filter(username=body["username"]).exists()


@pytest.mark.parametrize("caller", ["developer", "auditor"])
def test_who_is_no_admin_makes_no_users(cast: Cast, caller: str) -> None:
    body = {"username": unique("new"), "organization": str(cast.organization.id), "role": "developer"}
    error_of(cast.by_role(caller).post("users", body), 403, "FORBIDDEN")


def test_an_admin_does_not_change_users(cast: Cast) -> None:
    error_of(cast.admin.patch(f"users/{cast.developer.user.id}", {"password": PASSWORD}), 403, "FORBIDDEN")


def test_a_superadmin_makes_a_superadmin_but_not_of_one_whose_keys_others_know(cast: Cast) -> None:
    assert cast.developer.key
    address = f"users/{cast.developer.user.id}"
    error = error_of(cast.superadmin.patch(address, {"is_superadmin": True}), 400, "INVALID_REQUEST")
    assert error["param"] == "is_superadmin"
    key = cast.superadmin.get("keys", user=str(cast.developer.user.id)).json()["results"][0]
    cast.superadmin.post(f"keys/{key['id']}/revoke")
    assert cast.superadmin.patch(address, {"is_superadmin": True}).json()["is_superadmin"] is True


def test_memberships_elsewhere_are_not_shown(cast: Cast) -> None:
    Membership.objects.create(organization=cast.elsewhere, user=cast.developer.user, role="auditor")
    seen = cast.admin.get(f"users/{cast.developer.user.id}").json()["memberships"]
    assert seen == [{"organization": str(cast.organization.id), "role": "developer"}]
    listed = cast.outsider.get("users", username=cast.developer.user.username).json()["results"]
    assert [one["memberships"] for one in listed] == [[{"organization": str(cast.elsewhere.id), "role": "auditor"}]]
    assert len(cast.superadmin.get(f"users/{cast.developer.user.id}").json()["memberships"]) == 2


def test_an_admin_cannot_draw_in_a_user_of_another_organization(cast: Cast) -> None:
    body = {"organization": str(cast.organization.id), "user": str(cast.outsider.user.id), "role": "developer"}
    error = error_of(cast.admin.post("memberships", body), 400, "INVALID_REQUEST")
    assert (error["param"], error["message"]) == ("user", "Unknown id.")


def test_a_changed_role_holds_from_the_next_request_on(cast: Cast) -> None:
    membership = Membership.objects.get(user=cast.developer.user)
    error_of(cast.developer.get("changes"), 403, "FORBIDDEN")
    cast.admin.patch(f"memberships/{membership.id}", {"role": "auditor"})
    assert cast.developer.get("changes").status_code == 200
