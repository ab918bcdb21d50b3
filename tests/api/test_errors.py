"""Whatever comes in, the answer is a refusal in the one shape and never a failure of ours."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from apps.orgs.models import Organization
from tests.api.cast import NOBODYS_ID, Cast, error_of, unique
from tests.api.collections import SAMPLES, Sample

BAD = "INVALID_REQUEST"
each = pytest.mark.parametrize("sample", SAMPLES, ids=str)

BAD_BODIES = {
    "nothing": b"",
    "not json": b"name=x",
    "half": b'{"name": "x"',
    "list": b"[]",
    "text": b'"name"',
    "number": b"1",
    "null": b"null",
    "deep": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep but short": b'{"name": ' + b"[" * 80 + b"]" * 80 + b"}",
    "nan": b'{"name": NaN}',
    "infinity": b'{"priority": -Infinity}',
    "huge exponent": b'{"priority": 1e999}',
    "huge integer": b'{"priority": ' + b"9" * 5000 + b"}",
    "same key twice": b'{"name": "a", "name": "b"}',
    "nul": b'{"name": "a\\u0000b"}',
    "surrogate": b'{"name": "\\ud800"}',
    "not utf-8": b'{"name": "\xff"}',
    "utf-16": '{"name": "x"}'.encode("utf-16"),
}


@each
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body_is_refused(cast: Cast, sample: Sample, body: bytes) -> None:
    error_of(cast.superadmin.call("POST", sample.path, body), 400, BAD)


BAD_VALUES = {
    "null": None,
    "true": True,
    "number": 7,
    "negative": -(2**63),
    "large": 2**63 - 1,
    "fraction": 1.5,
    "empty": "",
    "blank": "   ",
    "long": "x" * 100_000,
    "list": [],
    "nested": [[{}]],
    "object": {"a": {"b": []}},
    "sql": "'; DROP TABLE orgs_user; --",
    "id of nothing": NOBODYS_ID,
    "curly id": "{" + NOBODYS_ID + "}",
    "year 0": "0000-01-01T00:00:00Z",
    "before the first year": "0001-01-01T00:00:00+14:00",
    "after the last year": "9999-12-31T23:59:59-14:00",
    "no such day": "2026-02-30T00:00:00Z",
    "right to left": "\u202e\ufeff",
}
WRITABLE = {
    "organizations": ["name", "state"],
    "applications": ["organization", "name", "is_active"],
    "keys": ["organization", "application", "user", "name", "expires_at"],
    "policies": ["organization", "application", "user", "key", "name", "kind", "mode", "config"],
    "users": ["username", "email", "full_name", "password", "is_active", "is_superadmin", "organization", "role"],
    "memberships": ["organization", "user", "role"],
    "provider-credentials": ["organization", "name", "provider", "base_url", "secret", "is_active"],
    "routes": ["organization", "model", "credential", "upstream_model", "priority", "is_active"],
    "prices": [
        "provider",
        "model",
        "input_usd_per_million",
        "output_usd_per_million",
        "cached_input_usd_per_million",
        "effective_from",
    ],
}


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in WRITABLE.items() for field in fields])
def test_an_odd_value_in_any_field_is_taken_or_refused_by_name(cast: Cast, path: str, field: str) -> None:
    sample = next(one for one in SAMPLES if one.path == path)
    # An admin, since a superadmin's odd values could reach what all tests share.
    caller = cast.superadmin if path in {"organizations", "users", "prices"} else cast.admin
    body = sample.body(cast)
    for name, value in BAD_VALUES.items():
        answer = caller.post(path, body | {field: value})
        assert answer.status_code in {201, 400, 403}, (name, answer.status_code)
        if answer.status_code == 400:
            error = error_of(answer, 400, BAD)
            assert error["param"] is not None, name
            assert str(value) not in error["message"] or len(str(value)) < 5, name
        elif answer.status_code == 201:
            assert caller.delete(f"{path}/{answer.json()['id']}").status_code == 204
            body = sample.body(cast)


@each
@pytest.mark.parametrize(
    "id_text",
    [
        "1",
        "nothing",
        NOBODYS_ID[:-1],
        NOBODYS_ID.replace("-", ""),
        "{" + NOBODYS_ID + "}",
        "urn:uuid:" + NOBODYS_ID,
        "%00",
        "%ff",
        "%ed%a0%80",
        "..",
        "a" * 2000,
        quote("ümlaut"),
    ],
)
def test_an_id_that_is_none_leads_nowhere(cast: Cast, sample: Sample, id_text: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        error_of(cast.superadmin.call(method, f"{sample.path}/{id_text}", {}), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["", "nowhere", "keys/", "organizations/a/b/c", "metrics", "metrics/nothing", "%00"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_address_that_is_none_leads_nowhere(cast: Cast, path: str, method: str) -> None:
    error_of(cast.superadmin.call(method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "organizations"),
        ("PUT", "keys"),
        ("OPTIONS", "keys"),
        ("TRACE", "keys"),
        ("BREW", "keys"),
        ("POST", "audit-logs"),
        ("DELETE", f"audit-logs/{NOBODYS_ID}"),
        ("PATCH", f"changes/{NOBODYS_ID}"),
        ("POST", "metrics/usage"),
        ("GET", f"keys/{NOBODYS_ID}/revoke"),
    ],
)
def test_a_method_that_is_none_is_refused(cast: Cast, method: str, path: str) -> None:
    answer = cast.superadmin.call(method, path)
    error_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert method not in answer.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", ""]
)
def test_a_body_that_does_not_say_it_is_json_is_refused(cast: Cast, content_type: str) -> None:
    body = json.dumps({"name": unique("x")}).encode()
    error_of(cast.superadmin.call("POST", "organizations", body, content_type=content_type), 415, BAD)


def test_a_compressed_body_is_refused(cast: Cast) -> None:
    answer = cast.superadmin.call("POST", "organizations", {"name": "x"}, content_encoding="gzip")
    error_of(answer, 415, BAD)


def test_a_body_beyond_the_servers_limit_is_refused(cast: Cast, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1000
    error_of(cast.superadmin.post("organizations", {"name": "x" * 1000}), 413, BAD)


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*", "nonsense"])
def test_the_answer_is_json_whatever_was_asked_for(cast: Cast, accept: str) -> None:
    answer = cast.superadmin.call("GET", "organizations?limit=1", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 400, "cursor"),
        ("cursor=MjAyNi0wMS0wMXxub3RoaW5n", "cursor"),
        ("organization=acme", "organization"),
        ("organization=%00", "organization"),
        ("status=fine", "status"),
        ("model=%00", "model"),
        ("model=" + "m" * 600, "model"),
        ("since=yesterday", "since"),
        ("since=2026-02-30", "since"),
        ("since=2026-13-01T00:00:00Z", "since"),
        ("until=0001-01-01T00:00:00%2B14:00", "until"),
        ("request_id=1", "request_id"),
        ("metadata.%00=x", "metadata.?"),
        ("metadata.team=%00", "metadata.team"),
        ("colour=red", "colour"),
        ("Status=success", "Status"),
        ("%00=1", "?"),
        ("&".join(f"a{number}=1" for number in range(1500)), None),
    ],
)
def test_a_bad_parameter_is_refused_by_name(cast: Cast, query: str, param: str | None) -> None:
    answer = cast.superadmin.call("GET", f"audit-logs?{query}")
    assert error_of(answer, 400, BAD)["param"] == param


@pytest.mark.parametrize("query", ["group_by=shoe", "limit=5", "since=x", "organization=x", "application=%ff"])
def test_a_bad_parameter_of_usage_is_refused(cast: Cast, query: str) -> None:
    answer = cast.superadmin.call("GET", f"metrics/usage?{query}")
    assert error_of(answer, 400, BAD)["param"] == query.partition("=")[0]


@pytest.mark.parametrize("since", ["0001-01-01", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"])
def test_a_distant_moment_is_a_moment(cast: Cast, since: str) -> None:
    for name in ("since", "until"):
        assert cast.auditor.call("GET", f"audit-logs?{name}={since}").status_code == 200
        assert cast.auditor.call("GET", f"changes?{name}={since}").status_code == 200


def test_several_faults_are_told_at_once(cast: Cast) -> None:
    error = error_of(cast.superadmin.post("routes", {"priority": "first"}), 400, BAD)
    assert set(error["details"]) == {"model", "credential", "priority"}


def test_a_database_that_refuses_a_row_makes_a_conflict_and_says_nothing_of_it(cast: Cast) -> None:
    name = unique("raced")
    Organization.objects.create(name=name)
    from apps.orgs.rest.errors import exception_handler

    try:
        Organization.objects.create(name=name)
    except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
        answer = exception_handler(error, {})
    assert answer.status_code == 409
    assert answer.data["error"]["code"] == "CONFLICT"
    assert name not in str(answer.data)


def test_a_failure_that_nobody_foresaw_is_told_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    from apps.orgs.rest.errors import exception_handler

    answer = exception_handler(RuntimeError("the secret is 42"), {})
    assert answer.status_code == 500
    assert answer.data["error"]["code"] == "INTERNAL_ERROR"
    assert "42" not in str(answer.data) + caplog.text
    assert "RuntimeError" in caplog.text
