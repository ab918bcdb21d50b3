from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from apps.audit.models import ChangeRecord
from apps.orgs.models import ApiKey, Membership
from apps.orgs.roles import Role
from tests.api.cast import Api, Cast, error_of, person, unique


def test_a_key_is_shown_once_and_stored_nowhere(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "once"})
    text = made["key"]
    assert text.startswith("lcp_")
    assert text[4:12] == made["prefix"]
    secret = text.split("_")[2]
    for answer in (cast.developer.get(f"keys/{made['id']}"), cast.admin.get("keys"), cast.admin.get("changes")):
        assert answer.status_code == 200
        assert secret not in answer.content.decode()
    row = ApiKey.objects.filter(id=made["id"]).values().get()
    assert secret not in str(row)
    assert row["digest"] not in cast.admin.get("changes").content.decode()


@pytest.mark.parametrize("owners", [(), ("application", "user")])
def test_a_key_has_exactly_one_owner(cast: Cast, owners: tuple[str, ...]) -> None:
    ids = {"application": str(cast.application.id), "user": str(cast.admin.user.id)}
    body = {"name": "k"} | {owner: ids[owner] for owner in owners}
    assert error_of(cast.admin.post("keys", body), 400, "INVALID_REQUEST")["param"] == "application"


def test_a_key_of_an_application_cannot_name_another_organization(cast: Cast) -> None:
    body = {"application": str(cast.application.id), "organization": str(cast.elsewhere.id), "name": "k"}
    assert error_of(cast.superadmin.post("keys", body), 400, "INVALID_REQUEST")["param"] == "organization"


def test_everyone_issues_keys_for_themselves(cast: Cast) -> None:
    for caller in (cast.admin, cast.developer, cast.auditor):
        made = caller.made("keys", {"user": str(caller.user.id), "name": "mine"})
        assert made["organization"] == str(cast.organization.id)
        assert Api(made["key"]).get("applications").status_code == 200


def test_an_admin_issues_keys_for_members_and_nobody_else(cast: Cast) -> None:
    body = {"user": str(cast.developer.user.id), "organization": str(cast.organization.id), "name": "yours"}
    assert Api(cast.admin.made("keys", body)["key"]).get("changes").status_code == 403
    error = error_of(cast.admin.post("keys", body | {"user": str(cast.outsider.user.id)}), 400, "INVALID_REQUEST")
    assert (error["param"], error["message"]) == ("user", "Unknown id.")


@pytest.mark.parametrize("caller", ["developer", "auditor"])
def test_nobody_gains_an_admins_role_with_a_key(cast: Cast, caller: str) -> None:
    admins = cast.admin.made("keys", {"user": str(cast.admin.user.id), "name": "admin's"})
    low = cast.by_role(caller)
    assert low.post("keys", {"user": str(cast.admin.user.id), "name": "k"}).status_code in {400, 403}
    error_of(low.post(f"keys/{admins['id']}/rotate", {}), 403, "FORBIDDEN")
    error_of(low.post(f"keys/{admins['id']}/revoke"), 403, "FORBIDDEN")
    error_of(low.patch(f"keys/{admins['id']}", {"name": "mine"}), 403, "FORBIDDEN")


def test_an_admin_does_not_gain_a_superadmins_role_with_a_key(cast: Cast) -> None:
    both = person(cast.organization, Role.ADMIN)
    both.user.is_superuser = True
    both.user.save()
    assert both.key
    key = ApiKey.objects.get(user=both.user)
    body = {"user": str(both.user.id), "organization": str(cast.organization.id), "name": "k"}
    error_of(cast.admin.post("keys", body), 403, "FORBIDDEN")
    error_of(cast.admin.post(f"keys/{key.id}/rotate", {}), 403, "FORBIDDEN")


def test_a_key_for_one_organization_makes_none_for_others(cast: Cast) -> None:
    Membership.objects.create(organization=cast.elsewhere, user=cast.admin.user, role="admin")
    mine = {"user": str(cast.admin.user.id), "name": "k"}
    error_of(cast.admin.post("keys", mine | {"organization": None}), 403, "FORBIDDEN")
    error_of(cast.admin.post("keys", mine | {"organization": str(cast.elsewhere.id)}), 400, "INVALID_REQUEST")
    assert cast.admin.made("keys", mine)["organization"] == str(cast.organization.id)


def test_a_key_for_one_organization_does_not_see_the_users_other_keys(cast: Cast) -> None:
    other = cast.superadmin.made("keys", {"user": str(cast.admin.user.id), "organization": None, "name": "wide"})
    error_of(cast.admin.post(f"keys/{other['id']}/rotate", {}), 404, "NOT_FOUND")


def test_revoking_twice_keeps_the_first_moment(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "k"})
    first = cast.developer.post(f"keys/{made['id']}/revoke")
    assert first.status_code == 200
    assert first.json()["state"] == "revoked"
    assert cast.admin.post(f"keys/{made['id']}/revoke").json() == first.json()
    assert [r.action for r in ChangeRecord.objects.filter(object_id=made["id"]).order_by("id")] == ["create", "revoke"]


def test_a_rotated_key_is_replaced_at_once(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": unique("k")})
    answer = cast.developer.post(f"keys/{made['id']}/rotate", {})
    assert answer.status_code == 201
    successor = answer.json()
    assert successor["key"] != made["key"]
    assert (successor["name"], successor["application"]) == (made["name"], made["application"])
    assert cast.developer.get(f"keys/{made['id']}").json()["state"] == "revoked"
    assert cast.developer.get(f"keys/{successor['id']}").json()["state"] == "active"


def test_a_rotated_key_may_live_on_for_a_grace(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "k"})
    assert cast.developer.post(f"keys/{made['id']}/rotate", {"grace_seconds": 60}).status_code == 201
    old = cast.developer.get(f"keys/{made['id']}").json()
    assert old["state"] == "active"
    assert timezone.now() < datetime.fromisoformat(old["expires_at"]) <= timezone.now() + timedelta(seconds=60)


def test_a_grace_does_not_prolong_a_key(cast: Cast) -> None:
    soon = (timezone.now() + timedelta(seconds=30)).isoformat()
    body = {"application": str(cast.application.id), "name": "k", "expires_at": soon}
    made = cast.developer.made("keys", body)
    successor = cast.developer.post(f"keys/{made['id']}/rotate", {"grace_seconds": 600}).json()
    assert cast.developer.get(f"keys/{made['id']}").json()["expires_at"] == made["expires_at"]
    assert successor["expires_at"] == made["expires_at"]


@pytest.mark.parametrize("grace", [-1, 10**9, "60", 1.5, True, None])
def test_a_grace_that_is_none_is_refused(cast: Cast, grace: object) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "k"})
    answer = cast.developer.post(f"keys/{made['id']}/rotate", {"grace_seconds": grace})
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "grace_seconds"


def test_a_dead_key_is_not_rotated(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "k"})
    cast.developer.post(f"keys/{made['id']}/revoke")
    error_of(cast.developer.post(f"keys/{made['id']}/rotate", {}), 400, "INVALID_REQUEST")


def test_a_keys_policies_move_to_its_successor(cast: Cast) -> None:
    made = cast.admin.made("keys", {"application": str(cast.application.id), "name": "k"})
    cap = {"key": made["id"], "kind": "cost_cap", "config": {"limit_usd": "5", "per": "day"}}
    policy = cast.admin.made("policies", cap)
    error_of(cast.developer.post(f"keys/{made['id']}/rotate", {"grace_seconds": 60}), 400, "INVALID_REQUEST")
    successor = cast.developer.post(f"keys/{made['id']}/rotate", {}).json()
    moved = cast.admin.get(f"policies/{policy['id']}").json()
    assert (moved["key"], moved["version"]) == (successor["id"], 2)


def test_a_developer_cannot_delete_a_key(cast: Cast) -> None:
    made = cast.developer.made("keys", {"application": str(cast.application.id), "name": "k"})
    error_of(cast.developer.delete(f"keys/{made['id']}"), 403, "FORBIDDEN")
