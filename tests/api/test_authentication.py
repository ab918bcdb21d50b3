from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from apps.orgs import keys
from apps.orgs.models import Membership
from tests.api.cast import Api, Cast, error_of

UNAUTHENTICATED = "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer lcp_",
        "Bearer lcp_\x00",
        "Basic dXNlcjpwYXNz",
        "Bearer " + "a" * 5000,
        "Bearer lcp_ÄÖÜ",
    ],
)
def test_what_is_no_key_is_refused(header: str) -> None:
    answer = Api(None).call("GET", "organizations", authorization=header)
    error_of(answer, 401, UNAUTHENTICATED)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_well_formed_key_that_nobody_has_is_refused() -> None:
    error_of(Api(keys.new_text()).get("organizations"), 401, UNAUTHENTICATED)


def test_a_key_with_anothers_prefix_is_refused(cast: Cast) -> None:
    real, drawn = cast.admin.key or "", keys.new_text()
    forged = real[:12] + drawn[12:]
    error_of(Api(forged).get("organizations"), 401, UNAUTHENTICATED)


def test_a_revoked_key_is_refused_from_the_next_request_on(cast: Cast) -> None:
    key = cast.superadmin.made("keys", {"user": str(cast.admin.user.id), "name": "short-lived"})
    holder = Api(key["key"])
    assert holder.get("applications").status_code == 200
    cast.superadmin.post(f"keys/{key['id']}/revoke")
    error_of(holder.get("applications"), 401, UNAUTHENTICATED)


def test_an_expired_key_is_refused(cast: Cast) -> None:
    expired = (timezone.now() - timedelta(seconds=1)).isoformat()
    body = {"user": str(cast.admin.user.id), "name": "expired", "expires_at": expired}
    key = cast.superadmin.made("keys", body)
    assert key["state"] == "expired"
    error_of(Api(key["key"]).get("applications"), 401, UNAUTHENTICATED)


def test_an_inactive_users_key_is_refused(cast: Cast) -> None:
    cast.superadmin.patch(f"users/{cast.developer.user.id}", {"is_active": False})
    error_of(cast.developer.get("applications"), 401, UNAUTHENTICATED)


def test_a_lost_membership_takes_the_role_with_it(cast: Cast) -> None:
    Membership.objects.filter(user=cast.admin.user).delete()
    error_of(cast.admin.get("applications"), 403, "FORBIDDEN")


def test_a_key_for_one_organization_does_not_act_in_the_users_others(cast: Cast) -> None:
    Membership.objects.create(organization=cast.elsewhere, user=cast.admin.user, role="admin")
    seen = {one["id"] for one in cast.admin.get("organizations").json()["results"]}
    assert seen == {str(cast.organization.id)}


def test_a_key_without_organization_acts_in_all_of_the_users(cast: Cast) -> None:
    Membership.objects.create(organization=cast.elsewhere, user=cast.admin.user, role="auditor")
    everywhere = Api(keys.issue(user=cast.admin.user, name="everywhere").text)
    seen = {one["id"] for one in everywhere.get("organizations").json()["results"]}
    assert seen == {str(cast.organization.id), str(cast.elsewhere.id)}


def test_a_superadmin_acts_everywhere(cast: Cast) -> None:
    assert cast.superadmin.get(f"applications/{cast.elsewheres_application.id}").status_code == 200
    assert cast.superadmin.get(f"applications/{cast.application.id}").status_code == 200


@pytest.mark.parametrize("path", ["organizations", "organizations/nothing", "nowhere", ""])
def test_every_answer_has_a_request_id(cast: Cast, path: str) -> None:
    first, second = cast.admin.call("GET", path), Api(None).call("GET", path)
    assert UUID(first.headers["x-request-id"]) != UUID(second.headers["x-request-id"])
