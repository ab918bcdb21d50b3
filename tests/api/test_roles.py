"""Who may do what, beyond the table of roles."""

import pytest

from tests.api.cast import Cast, error_of, unique
from tests.api.collections import SAMPLES, Sample

EVERYTHING = {sample.path for sample in SAMPLES} | {"audit-logs", "changes", "exports", "metrics/usage"}
MAY_LIST = {
    "admin": EVERYTHING,
    "auditor": EVERYTHING,
    "developer": EVERYTHING
    - {"users", "memberships", "provider-credentials", "changes", "exports", "alert-destinations"},
}
PATHS = sorted(MAY_LIST["admin"])
in_each_role = pytest.mark.parametrize("role", ["admin", "developer", "auditor"])


@in_each_role
@pytest.mark.parametrize("path", PATHS)
def test_a_role_lists_what_it_may_see(cast: Cast, role: str, path: str) -> None:
    answer = cast.by_role(role).get(path)
    if path in MAY_LIST[role]:
        assert answer.status_code == 200
    else:
        error_of(answer, 403, "FORBIDDEN")


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_applications_key_calls_inference_only(cast: Cast, sample: Sample) -> None:
    error_of(cast.application_key.get(sample.path), 403, "FORBIDDEN")
    error_of(cast.application_key.post(sample.path, {}), 403, "FORBIDDEN")


def test_a_user_without_a_role_sees_nothing(cast: Cast) -> None:
    user = cast.superadmin.made("users", {"username": unique("loner")})
    key = cast.superadmin.made("keys", {"user": user["id"], "name": "loner's"})
    loner = type(cast.admin)(key["key"])
    error_of(loner.get("organizations"), 403, "FORBIDDEN")
    error_of(loner.get("audit-logs"), 403, "FORBIDDEN")
    error_of(loner.get(f"applications/{cast.application.id}"), 403, "FORBIDDEN")
    assert [one["id"] for one in loner.get("keys").json()["results"]] == [key["id"]]


def test_an_admin_cannot_rename_or_reinstate_the_organization(cast: Cast) -> None:
    address = f"organizations/{cast.organization.id}"
    error_of(cast.admin.patch(address, {"name": cast.elsewhere.name}), 403, "FORBIDDEN")
    error_of(cast.admin.patch(address, {"name": unique("free")}), 403, "FORBIDDEN")
    error_of(cast.admin.patch(address, {"state": "suspended"}), 403, "FORBIDDEN")
    assert cast.admin.patch(address, {"name": cast.organization.name}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("policies", {"organization": None, "kind": "model_restriction", "config": {"allow": ["*"]}}),
        ("provider-credentials", {"name": "x", "provider": "openai", "secret": "sk-0123456789"}),
    ],
)
def test_only_a_superadmin_writes_for_the_whole_platform(cast: Cast, path: str, body: dict[str, object]) -> None:
    error_of(cast.admin.post(path, body), 403, "FORBIDDEN")
    body = body | {"name": unique("platform's"), "mode": "off"} if path == "policies" else body | {"name": unique("p")}
    made = cast.superadmin.made(path, body)
    assert made["organization"] is None
    error_of(cast.admin.get(f"{path}/{made['id']}"), 404, "NOT_FOUND")
    assert cast.superadmin.delete(f"{path}/{made['id']}").status_code == 204


def test_a_route_cannot_lead_to_a_credential_of_others(cast: Cast) -> None:
    body = {"name": unique("theirs"), "provider": "openai", "secret": "sk-0123456789"}
    of_the_platform = cast.superadmin.made("provider-credentials", body)
    theirs = cast.outsider.made("provider-credentials", body | {"organization": str(cast.elsewhere.id)})
    for credential in (of_the_platform, theirs):
        route = {"organization": str(cast.organization.id), "model": "m", "credential": credential["id"]}
        error = error_of(cast.admin.post("routes", route), 400, "INVALID_REQUEST")
        assert (error["param"], error["message"]) == ("credential", "Unknown id.")
    route = {"organization": str(cast.organization.id), "model": "m", "credential": theirs["id"]}
    error = error_of(cast.superadmin.post("routes", route), 400, "INVALID_REQUEST")
    assert error["param"] == "credential"
    cast.superadmin.delete(f"provider-credentials/{of_the_platform['id']}")
