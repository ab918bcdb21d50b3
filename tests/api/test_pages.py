from typing import Any
from urllib.parse import urlsplit

import pytest

from apps.orgs.models import Application
from apps.orgs.rest import openapi
from tests.api.cast import NOBODYS_ID, Cast, error_of

LISTS = {
    path: methods
    for path, methods in openapi.schema()["paths"].items()
    if any(one["name"] == "cursor" for one in methods.get("get", {}).get("parameters", ()))
}


def walk(cast: Cast, address: str) -> tuple[list[dict[str, Any]], int]:
    """Follow ``next`` to the end; return all results and the number of pages."""
    results: list[dict[str, Any]] = []
    pages = 0
    url: str | None = f"/v1/admin/{address}"
    while url:
        answer = cast.auditor.call("GET", url)
        assert answer.status_code == 200, answer.content
        page = answer.json()
        assert set(page) == {"results", "next"}
        results += page["results"]
        pages += 1
        url = page["next"] and _path_of(page["next"])
    return results, pages


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("http", "testserver")
    return f"{parts.path}?{parts.query}"


@pytest.mark.parametrize(("limit", "pages"), [(1, 8), (3, 3), (7, 2), (8, 1), (200, 1)])
def test_pages_hold_every_row_once_newest_first(cast: Cast, limit: int, pages: int) -> None:
    made = [
        cast.admin.made("applications", {"organization": str(cast.organization.id), "name": f"app {number}"})["id"]
        for number in range(7)
    ]
    results, count = walk(cast, f"applications?limit={limit}&organization={cast.organization.id}")
    assert [one["id"] for one in results] == [*reversed(made), str(cast.application.id)]
    assert count == pages


def test_rows_of_the_same_moment_are_neither_lost_nor_repeated(cast: Cast) -> None:
    names = {f"twin {number}" for number in range(9)}
    for name in names:
        Application.objects.create(organization=cast.organization, name=name)
    Application.objects.filter(organization=cast.organization).update(created_at="2026-01-01T00:00:00Z")
    results, _ = walk(cast, "applications?limit=2")
    assert sorted(one["name"] for one in results) == sorted(names | {"support bot"})


def test_rows_that_come_meanwhile_move_nothing(cast: Cast) -> None:
    for number in range(3):
        Application.objects.create(organization=cast.organization, name=f"app {number}")
    first = cast.auditor.get("applications", limit=2).json()
    Application.objects.create(organization=cast.organization, name="late")
    rest = cast.auditor.call("GET", _path_of(first["next"])).json()
    assert [one["name"] for one in first["results"] + rest["results"]] == ["app 2", "app 1", "app 0", "support bot"]


def test_a_cursor_of_another_collection_is_refused(cast: Cast) -> None:
    Application.objects.create(organization=cast.organization, name="second")
    cursor = cast.auditor.get("applications", limit=1).json()["next"].split("cursor=")[1]
    assert cast.auditor.call("GET", f"audit-logs?cursor={cursor}").status_code == 400


def test_the_filters_stay_on_the_next_page(cast: Cast) -> None:
    for number in range(3):
        Application.objects.create(organization=cast.organization, name=f"off {number}", is_active=False)
    results, pages = walk(cast, "applications?is_active=false&limit=2")
    assert {one["name"] for one in results} == {"off 0", "off 1", "off 2"}
    assert pages == 2


def test_a_parameter_without_a_value_filters_nothing(cast: Cast) -> None:
    answer = cast.auditor.call("GET", "applications?organization=&is_active=&limit=")
    assert [one["name"] for one in answer.json()["results"]] == ["support bot"]


@pytest.mark.parametrize("path", [path for path in LISTS if "{" not in path])
def test_every_list_takes_the_filters_that_are_described_and_no_other(cast: Cast, path: str) -> None:
    for one in LISTS[path]["get"]["parameters"]:
        if one["name"] == "metadata":
            continue  # metadata.<key>
        answer = cast.auditor.call("GET", f"{path}?{one['name']}={_good(one['schema'])}")
        assert answer.status_code in {200} | ({400} if one["name"] == "cursor" else set()), one["name"]
    error = error_of(cast.auditor.call("GET", f"{path}?organisation=x"), 400, "INVALID_REQUEST")
    assert error["param"] == "organisation"


def test_a_key_is_found_by_the_prefix_that_records_show(cast: Cast) -> None:
    made = cast.admin.made("keys", {"application": str(cast.application.id), "name": "k"})
    assert [one["id"] for one in cast.auditor.get("keys", prefix=made["prefix"]).json()["results"]] == [made["id"]]
    assert cast.outsider.get("keys", prefix=made["prefix"]).json()["results"] == []


def _good(schema: dict[str, Any]) -> str:
    by_format = {"uuid": NOBODYS_ID, "date-time": "2026-01-31T09:00:00Z", "decimal": "0.25"}
    by_type = {"integer": "7", "boolean": "true"}
    if "enum" in schema:
        return str(schema["enum"][0])
    return by_format.get(schema.get("format", ""), by_type.get(schema["type"], "some-text"))
