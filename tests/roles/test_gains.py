"""Nobody grants, makes or keeps more than they have, whatever is done in whatever order."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.audit.models import ChangeRecord
from apps.orgs.models import ApiKey, Membership, User
from apps.orgs.roles import Role
from tests.api.cast import Api, Cast, error_of, gather, person, unique


@pytest.fixture
def cast() -> Cast:
    return gather()


def membership(cast: Cast, api: Api) -> Membership:
    return Membership.objects.get(organization=cast.organization, user=api.user)


# --- Keys


@pytest.mark.parametrize("caller", ["developer", "auditor"])
def test_who_is_no_admin_makes_and_renews_keys_of_themselves_alone(cast: Cast, caller: str) -> None:
    api = cast.by_role(caller)
    for owner in ("superadmin", "admin", "developer", "auditor"):
        assert cast.by_role(owner).key
        body = {"user": str(cast.by_role(owner).user.id), "organization": str(cast.organization.id), "name": "k"}
        assert (api.post("keys", body).status_code == 201) is (owner == caller), owner
        theirs = ApiKey.objects.filter(user=cast.by_role(owner).user).order_by("pk")[0]
        if owner != caller:
            assert api.post(f"keys/{theirs.pk}/rotate").status_code in (403, 404)
            assert api.post(f"keys/{theirs.pk}/revoke").status_code in (403, 404)


def test_a_key_acts_with_the_lower_role_from_the_request_after_its_owner_was_demoted(cast: Cast) -> None:
    second = person(cast.organization, Role.ADMIN)
    body = {"organization": str(cast.organization.id), "name": unique("app")}
    second.made("applications", body)
    cast.admin.patch(f"memberships/{membership(cast, second).id}", {"role": "auditor"})
    error_of(second.post("applications", body | {"name": unique("app")}), 403, "FORBIDDEN")
    assert second.get("applications").status_code == 200
    cast.admin.delete(f"memberships/{membership(cast, second).id}")
    error_of(second.get("applications"), 403, "FORBIDDEN")


def test_the_keys_of_a_superadmin_who_is_none_any_more_reach_nothing(cast: Cast) -> None:
    former = person(None, Role.SUPERADMIN)
    assert cast.superadmin.patch(f"users/{former.user.id}", {"is_superadmin": False}).status_code == 200
    error_of(former.get("organizations"), 403, "FORBIDDEN")


# --- Memberships


def test_a_superadmins_role_is_in_nobodys_hands_but_a_superadmins(cast: Cast) -> None:
    who = membership(cast, cast.developer)
    assert cast.admin.patch(f"memberships/{who.id}", {"role": "superadmin"}).status_code == 400
    error_of(cast.admin.patch(f"users/{cast.developer.user.id}", {"is_superadmin": True}), 403, "FORBIDDEN")
    body = {"username": unique("u"), "organization": str(cast.organization.id), "role": "superadmin"}
    assert cast.admin.post("users", body).status_code == 400
    assert not User.objects.get(pk=cast.developer.user.pk).is_superuser


def test_the_last_admin_stays(cast: Cast) -> None:
    last = membership(cast, cast.admin)
    for answer in (
        cast.admin.patch(f"memberships/{last.id}", {"role": "auditor"}),
        cast.admin.delete(f"memberships/{last.id}"),
    ):
        error_of(answer, 409, "CONFLICT")
    second = person(cast.organization, Role.ADMIN)
    assert cast.admin.patch(f"memberships/{last.id}", {"role": "auditor"}).status_code == 200
    error_of(second.delete(f"memberships/{membership(cast, second).id}"), 409, "CONFLICT")


def test_an_admin_who_may_not_log_in_does_not_count_as_one(cast: Cast) -> None:
    second = person(cast.organization, Role.ADMIN)
    User.objects.filter(pk=second.user.pk).update(is_active=False)
    error_of(cast.admin.delete(f"memberships/{membership(cast, cast.admin).id}"), 409, "CONFLICT")


@pytest.mark.parametrize("loss", ["demoted", "removed", "suspended", "deleted"])
def test_a_superadmin_ends_the_last_admin_and_the_record_says_so(cast: Cast, loss: str) -> None:
    last, user = membership(cast, cast.admin), f"users/{cast.admin.user.id}"
    api = cast.superadmin
    answer: Any = {
        "demoted": lambda: api.patch(f"memberships/{last.id}", {"role": "developer"}),
        "removed": lambda: api.delete(f"memberships/{last.id}"),
        "suspended": lambda: api.patch(user, {"is_active": False}),
        "deleted": lambda: api.delete(user),
    }[loss]()
    assert answer.status_code in (200, 204)
    changed = last.id if loss in ("demoted", "removed") else last.user_id
    (record,) = ChangeRecord.objects.filter(object_id=str(changed), action__in=["change", "delete"])
    assert f"No admin is left in {cast.organization}." in record.reason


def test_a_superadmin_cannot_lock_themselves_out_over_the_api(cast: Cast) -> None:
    address = f"users/{cast.superadmin.user.id}"
    for change in ({"is_superadmin": False}, {"is_active": False}):
        error = error_of(cast.superadmin.patch(address, change), 400, "INVALID_REQUEST")
        assert error["param"] in change
    error_of(cast.superadmin.delete(address), 400, "INVALID_REQUEST")


# --- Anything in any order


@dataclass
class Deed:
    by: str
    to: str
    role: str
    what: str


PEOPLE = ("admin", "second", "developer", "auditor", "outsider")
DEEDS = st.builds(
    Deed,
    by=st.sampled_from(PEOPLE),
    to=st.sampled_from(PEOPLE),
    role=st.sampled_from(["admin", "developer", "auditor", "superadmin"]),
    what=st.sampled_from(["grant", "change", "remove", "key", "unbound key", "promote"]),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DEEDS, min_size=6, max_size=16))
def test_no_order_of_deeds_lifts_anybody_beyond_who_lifted_them(deeds: list[Deed]) -> None:
    """Who does something for which it takes an admin must be one at that moment, by the database's word."""
    cast = gather()
    people = {name: getattr(cast, name) for name in PEOPLE if name != "second"}
    people["second"] = person(cast.organization, Role.ADMIN)
    foreign = roles_at(cast.elsewhere.id)
    for deed in deeds:
        by, to = people[deed.by], people[deed.to]
        was_admin = roles_at(cast.organization.id).get(by.user.pk) == "admin"
        before = roles_at(cast.organization.id)
        answer = do(cast, deed, by, to)
        changed = roles_at(cast.organization.id) != before
        assert answer.status_code < 500
        assert was_admin or not changed, deed
        assert "admin" in roles_at(cast.organization.id).values(), deed
        assert roles_at(cast.elsewhere.id) == foreign
        assert not User.objects.filter(pk__in=[one.user.pk for one in people.values()], is_superuser=True).exists()
        if answer.status_code == 201 and deed.what in ("key", "unbound key"):
            assert deed.by == deed.to or (was_admin and deed.what == "key"), deed
            made = ApiKey.objects.get(pk=answer.json()["id"])
            assert deed.by == deed.to or made.organization_id == cast.organization.id


def do(cast: Cast, deed: Deed, by: Api, to: Api) -> Any:
    there, user = str(cast.organization.id), str(to.user.pk)
    row = Membership.objects.filter(organization=cast.organization, user=to.user).first()
    at = f"memberships/{row.pk if row else there}"
    match deed.what:
        case "grant":
            return by.post("memberships", {"organization": there, "user": user, "role": deed.role})
        case "change":
            return by.patch(at, {"role": deed.role})
        case "remove":
            return by.delete(at)
        case "key":
            return by.post("keys", {"organization": there, "user": user, "name": "k"})
        case "unbound key":
            return by.post("keys", {"organization": None, "user": user, "name": "k"})
        case _:
            return by.patch(f"users/{user}", {"is_superadmin": True, "is_active": True})


def roles_at(organization_id: Any) -> dict[Any, str]:
    return dict(Membership.objects.filter(organization_id=organization_id).values_list("user_id", "role"))
