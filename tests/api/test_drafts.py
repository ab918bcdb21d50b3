"""Drafts of policies over the API: kept, compared, published, discarded, and gone back from."""

from typing import Any

from tests.api.cast import Cast, error_of

RATE = {"requests": 5, "per": "minute"}


def made(cast: Cast) -> str:
    body = {"organization": str(cast.organization.id), "name": "Pace", "kind": "rate_limit", "config": RATE}
    return f"policies/{cast.admin.made('policies', body)['id']}"


def put(cast: Cast, url: str, **said: Any) -> Any:
    return cast.admin.call("PUT", f"{url}/draft", said)


def test_a_draft_is_kept_compared_and_published(cast: Cast) -> None:
    url = made(cast)
    kept = put(cast, url, config={"requests": 9, "per": "minute"}, mode="shadow", reason="try it")
    assert kept.status_code == 200, kept.content
    draft = cast.auditor.get(f"{url}/draft").json()
    assert draft == kept.json()
    assert (draft["base_version"], draft["is_behind"], draft["by"]) == (1, False, str(cast.admin.user))
    assert draft["says_now"] == "At most 5 requests a minute."
    assert draft["says"].startswith("In shadow:")
    assert {(one["field"], one["before"], one["after"]) for one in draft["changes"]} == {
        ("mode", "enforce", "shadow"),
        ("requests", "5", "9"),
    }
    policy = cast.admin.get(url).json()
    assert (policy["version"], policy["config"], policy["has_draft"]) == (1, RATE, True)
    published = cast.admin.call("POST", f"{url}/publish", {"reason": "it works"})
    assert published.status_code == 200, published.content
    assert (published.json()["version"], published.json()["mode"], published.json()["has_draft"]) == (
        2,
        "shadow",
        False,
    )
    error_of(cast.admin.get(f"{url}/draft"), 404, "NOT_FOUND")
    error_of(cast.admin.call("POST", f"{url}/publish", {}), 409, "CONFLICT")
    changes = cast.auditor.get("changes", object_id=url.split("/")[1]).json()["results"]
    assert [(one["action"], one["reason"]) for one in changes[:2]] == [("publish", "it works"), ("draft", "try it")]


def test_an_older_version_holds_again_as_a_new_one(cast: Cast) -> None:
    url = made(cast)
    cast.admin.patch(url, {"config": {"requests": 9, "per": "day"}, "name": "Wider"})
    put(cast, url, mode="off")
    back = cast.admin.call("POST", f"{url}/rollback", {"version": 1, "reason": "too wide"}).json()
    assert (back["version"], back["config"], back["name"], back["has_draft"]) == (3, RATE, "Pace", True)
    assert cast.admin.get(f"{url}/draft").json()["is_behind"] is True
    versions = cast.admin.get(f"{url}/versions").json()["results"]
    assert [one["version"] for one in versions] == [3, 2, 1]
    error_of(cast.admin.call("POST", f"{url}/rollback", {"version": 1}), 400, "INVALID_REQUEST")
    for said in ({"version": 7}, {"version": "1"}, {"version": True}, {}, {"version": 2, "colour": "red"}):
        error_of(cast.admin.call("POST", f"{url}/rollback", said), 400, "INVALID_REQUEST")


def test_a_draft_is_checked_like_a_policy_and_as_it_was_seen(cast: Cast) -> None:
    url = made(cast)
    wrong = error_of(put(cast, url, config={"requests": -1, "per": "minute"}), 400, "INVALID_REQUEST")
    assert wrong["param"] == "config.requests"
    for said in ({"organization": None}, {"version": 2}, {"mode": "loud"}, {"reason": "x" * 501}):
        error_of(put(cast, url, **said), 400, "INVALID_REQUEST")
    seen = cast.admin.get(url).headers["ETag"]
    assert put(cast, url, mode="off").status_code == 200
    stale = cast.admin.call("PUT", f"{url}/draft", {"mode": "shadow"}, **{"If-Match": seen})
    error_of(stale, 412, "PRECONDITION_FAILED")
    error_of(cast.admin.call("POST", f"{url}/publish", {}, **{"If-Match": seen}), 412, "PRECONDITION_FAILED")
    seen = cast.admin.get(f"{url}/draft").headers["ETag"]
    assert cast.admin.call("POST", f"{url}/publish", {}, **{"If-Match": seen}).status_code == 200


def test_drafts_are_for_those_who_may_write_policies(cast: Cast) -> None:
    url = made(cast)
    for method, path, said in (
        ("PUT", f"{url}/draft", {"mode": "off"}),
        ("DELETE", f"{url}/draft", None),
        ("POST", f"{url}/publish", {}),
        ("POST", f"{url}/rollback", {"version": 1}),
    ):
        error_of(cast.outsider.call(method, path, said), 404, "NOT_FOUND")
        error_of(cast.auditor.call(method, path, said), 403, "FORBIDDEN")
    assert put(cast, url, mode="off").status_code == 200
    error_of(cast.outsider.get(f"{url}/draft"), 404, "NOT_FOUND")
    assert cast.admin.call("DELETE", f"{url}/draft").status_code == 204
    error_of(cast.admin.call("DELETE", f"{url}/draft"), 404, "NOT_FOUND")
