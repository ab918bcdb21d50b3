from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.test.utils import CaptureQueriesContext

from apps.audit.models import RequestRecord, RequestText
from apps.audit.uuid7 import first_id_at, uuid7
from tests.api.cast import Cast, error_of
from tests.services.database_roles import as_the_server

ENTRY_FIELDS = {
    "id", "request_id", "timestamp", "organization", "application", "user", "end_user", "model", "provider",
    "upstream_model", "status", "error_code", "error_message", "prompt_redacted", "response_redacted",
    "tokens_input", "tokens_output", "cost_usd", "latency_ms", "metadata", "endpoint", "http_status", "streamed",
    "reasons", "policies", "findings", "limits", "attempts", "degraded", "first_byte_ms", "tokens_cached",
    "usage_source", "overrun_usd", "api_key",
}  # fmt: skip


def recorded(cast: Cast, *, elsewhere: bool = False, text: bool = True, **fields: Any) -> str:
    organization = cast.elsewhere if elsewhere else cast.organization
    moment = fields.pop("timestamp", datetime.now(UTC))
    record = RequestRecord.objects.create(
        **{
            "id": UUID(int=first_id_at(moment).int | (uuid7().int & ((1 << 80) - 1))),
            "timestamp": moment,
            "organization_id": organization.id,
            "organization_name": organization.name,
            "endpoint": "chat.completions",
            "model": "sim-echo",
            "provider": "simulated",
            "status": "success",
            "http_status": 200,
            "tokens_input": 10,
            "tokens_output": 5,
            "cost_nano_usd": 20_000,
        }
        | fields
    )
    if text:
        RequestText.objects.create(
            id=record.id,
            organization_id=organization.id,
            prompt_redacted="Write to [EMAIL].",
            response_redacted="Done.",
        )
    return str(record.id)


def ids_of(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [one["id"] for one in answer.json()["results"]]


@pytest.mark.parametrize("role", ["superadmin", "admin", "developer", "auditor"])
def test_an_entry_says_everything(cast: Cast, role: str) -> None:
    key_id = uuid4()
    record = recorded(
        cast,
        application_id=cast.application.id,
        api_key_id=key_id,
        end_user="visitor",
        upstream_model="sim-echo-1",
        metadata={"team": "red"},
        reasons=[{"code": "X"}],
        overrun_nano_usd=1,
        latency_ms=12,
    )
    caller = cast.by_role(role)
    [entry] = caller.get("audit-logs", organization=str(cast.organization.id)).json()["results"]
    assert entry == caller.get(f"audit-logs/{record}").json()
    assert set(entry) >= ENTRY_FIELDS
    expected = {
        "id": record,
        "request_id": record,
        "organization": str(cast.organization.id),
        "application": str(cast.application.id),
        "user": None,
        "api_key": str(key_id),
        "end_user": "visitor",
        "model": "sim-echo",
        "provider": "simulated",
        "upstream_model": "sim-echo-1",
        "status": "success",
        "cost_usd": "0.00002",
        "overrun_usd": "0.000000001",
        "tokens_input": 10,
        "tokens_output": 5,
        "latency_ms": 12,
        "first_byte_ms": None,
        "metadata": {"team": "red"},
        "reasons": [{"code": "X"}],
        "prompt_redacted": "Write to [EMAIL].",
        "response_redacted": "Done.",
        "error_code": "",
        "error_message": "",
    }
    assert {name: entry[name] for name in expected} == expected
    assert datetime.fromisoformat(entry["timestamp"]).tzinfo is not None


def test_an_erased_text_is_null(cast: Cast) -> None:
    entry = cast.auditor.get(f"audit-logs/{recorded(cast, text=False)}").json()
    assert (entry["prompt_redacted"], entry["response_redacted"]) == (None, None)


def test_an_outsider_sees_no_record(cast: Cast) -> None:
    record = recorded(cast)
    error_of(cast.outsider.get(f"audit-logs/{record}"), 404, "NOT_FOUND")
    assert ids_of(cast.outsider.get("audit-logs")) == []
    assert ids_of(cast.outsider.get("audit-logs", organization=str(cast.organization.id))) == []
    assert ids_of(cast.outsider.get("audit-logs", request_id=record)) == []
    assert cast.outsider.get("metrics/usage").json()["requests"] == 0


FILTERS: list[tuple[str, Any, dict[str, Any]]] = [
    ("application", "6f1e3f0a-0000-4000-8000-000000000001", {"application_id": "6f1e3f0a-0000-4000-8000-000000000001"}),
    ("user", "6f1e3f0a-0000-4000-8000-000000000002", {"user_id": "6f1e3f0a-0000-4000-8000-000000000002"}),
    ("api_key", "6f1e3f0a-0000-4000-8000-000000000003", {"api_key_id": "6f1e3f0a-0000-4000-8000-000000000003"}),
    ("end_user", "visitor & co", {"end_user": "visitor & co"}),
    ("status", "blocked", {"status": "blocked"}),
    ("status", "interrupted", {"status": "interrupted"}),
    ("model", "gpt-4o", {"model": "gpt-4o"}),
    ("provider", "openai", {"provider": "openai"}),
    ("error_code", "PII_DETECTED", {"error_code": "PII_DETECTED"}),
    ("metadata.team", "red", {"metadata": {"team": "red", "tier": "1"}}),
    ("metadata.5", "five", {"metadata": {"5": "five"}}),
    ("metadata.a.b__c'\"", "x=y&z", {"metadata": {"a.b__c'\"": "x=y&z"}}),
]


@pytest.mark.parametrize(("name", "value", "fields"), FILTERS, ids=[name for name, *_ in FILTERS])
def test_a_filter_finds_what_it_names_and_nothing_else(cast: Cast, name: str, value: Any, fields: Any) -> None:
    recorded(cast, metadata={"team": "blue"})
    wanted = recorded(cast, **fields)
    recorded(cast, elsewhere=True, **fields)
    assert ids_of(cast.auditor.get("audit-logs", **{name: value})) == [wanted]


def test_a_record_is_found_by_its_request_id(cast: Cast) -> None:
    recorded(cast)
    wanted = recorded(cast)
    assert ids_of(cast.auditor.get("audit-logs", request_id=wanted)) == [wanted]


def test_filters_narrow_together(cast: Cast) -> None:
    recorded(cast, status="error", model="a")
    recorded(cast, status="success", model="b")
    wanted = recorded(cast, status="error", model="b", metadata={"x": "1", "y": "2"})
    query = {"status": "error", "model": "b", "metadata.x": "1", "metadata.y": "2"}
    assert ids_of(cast.auditor.get("audit-logs", **query)) == [wanted]
    assert ids_of(cast.auditor.get("audit-logs", **query | {"metadata.y": "3"})) == []


def test_a_period_begins_at_since_and_ends_before_until(cast: Cast) -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    hours = [recorded(cast, timestamp=start + timedelta(hours=number)) for number in range(4)]
    period = {"since": "2026-03-01T13:00:00Z", "until": "2026-03-01T15:00:00+00:00"}
    assert ids_of(cast.auditor.get("audit-logs", **period)) == [hours[2], hours[1]]
    assert ids_of(cast.auditor.get("audit-logs", since="2026-03-01", until="2026-03-02")) == hours[::-1]
    assert ids_of(cast.auditor.call("GET", "audit-logs?since=2026-03-01T15:00:00+00:00")) == [hours[3]]
    assert ids_of(cast.auditor.get("audit-logs", since="2026-03-01T16:00:00+01:00")) == [hours[3]]


def test_entries_come_newest_first_in_pages(cast: Cast) -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = [recorded(cast, timestamp=start + timedelta(minutes=number)) for number in range(5)]
    first = cast.auditor.get("audit-logs", limit=3)
    assert ids_of(first) == made[:1:-1]
    rest = cast.auditor.call("GET", first.json()["next"].removeprefix("http://testserver"))
    assert ids_of(rest) == made[1::-1]
    assert rest.json()["next"] is None


def test_a_longer_page_costs_no_more_queries(cast: Cast) -> None:
    counts = []
    assert cast.auditor.key
    for _ in range(2):
        for _ in range(5):
            recorded(cast)
        with as_the_server(), CaptureQueriesContext(connections[DEFAULT_DB_ALIAS]) as queries:
            assert cast.auditor.get("audit-logs").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_usage_is_summed_over_what_the_caller_sees(cast: Cast) -> None:
    recorded(cast)
    recorded(cast, status="blocked", tokens_input=0, tokens_output=0, cost_nano_usd=0)
    recorded(cast, status="error", cost_nano_usd=1)
    recorded(cast, status="interrupted", cost_nano_usd=0)
    recorded(cast, status="cancelled", cost_nano_usd=0)
    recorded(cast, elsewhere=True)
    assert cast.developer.get("metrics/usage").json() == {
        "requests": 5,
        "tokens_input": 40,
        "tokens_output": 20,
        "cost_usd": "0.000020001",
        "blocked": 1,
        "errors": 2,
        "group_by": None,
        "groups": [],
    }


def test_usage_of_nothing_is_zero(cast: Cast) -> None:
    usage = cast.developer.get("metrics/usage", group_by="model").json()
    assert (usage["requests"], usage["cost_usd"], usage["groups"]) == (0, "0.00", [])


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("model", {("a", "a"): 2, ("b", "b"): 1}),
        ("status", {("success", "success"): 2, ("error", "error"): 1}),
        ("day", {("2026-03-01", "2026-03-01"): 1, ("2026-03-02", "2026-03-02"): 2}),
        ("application", {("6f1e3f0a-0000-4000-8000-000000000001", "bot"): 2, (None, ""): 1}),
        ("user", {("6f1e3f0a-0000-4000-8000-000000000002", "ada"): 1, (None, ""): 2}),
    ],
)
def test_usage_is_grouped(cast: Cast, group_by: str, groups: Any) -> None:
    bot = {"application_id": "6f1e3f0a-0000-4000-8000-000000000001", "application_name": "bot"}
    ada = {"user_id": "6f1e3f0a-0000-4000-8000-000000000002", "user_name": "ada"}
    recorded(cast, model="a", timestamp=datetime(2026, 3, 1, 23, 59, tzinfo=UTC), **bot)
    recorded(cast, model="a", timestamp=datetime(2026, 3, 2, tzinfo=UTC), **bot)
    recorded(cast, model="b", status="error", timestamp=datetime(2026, 3, 2, 1, tzinfo=UTC), **ada)
    found = cast.auditor.get("metrics/usage", group_by=group_by).json()["groups"]
    assert {(one["key"], one["name"]): one["requests"] for one in found} == groups
    assert set(found[0]) == {
        "key", "name", "requests", "tokens_input", "tokens_output", "cost_usd", "blocked", "errors"
    }  # fmt: skip


def test_usage_is_narrowed_by_the_period_and_the_application(cast: Cast) -> None:
    recorded(cast, timestamp=datetime(2026, 3, 1, tzinfo=UTC), application_id=cast.application.id)
    recorded(cast, timestamp=datetime(2026, 3, 2, tzinfo=UTC))
    usage = cast.auditor.get("metrics/usage", since="2026-03-01", until="2026-03-02").json()
    assert usage["requests"] == 1
    assert cast.auditor.get("metrics/usage", application=str(cast.application.id)).json()["requests"] == 1
    assert cast.auditor.get("metrics/usage", since="2026-03-03").json()["requests"] == 0


def test_changes_are_listed_for_those_who_may_see_them(cast: Cast) -> None:
    made = cast.admin.made("applications", {"organization": str(cast.organization.id), "name": "new"})
    [change] = cast.auditor.get("changes", object_id=made["id"]).json()["results"]
    assert (change["action"], change["object_type"], change["actor"]) == (
        "create", "orgs.application", str(cast.admin.user.id)
    )  # fmt: skip
    assert cast.auditor.get(f"changes/{change['id']}").json() == change
    error_of(cast.outsider.get(f"changes/{change['id']}"), 404, "NOT_FOUND")
    error_of(cast.developer.get("changes"), 403, "FORBIDDEN")
    assert cast.outsider.get("changes", object_id=made["id"]).json()["results"] == []
