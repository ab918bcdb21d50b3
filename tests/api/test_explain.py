"""What the policies say of a request that is not made, and which policies there are for a caller."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.audit.models import OpenRequest, RequestRecord
from apps.gateway.runtime import BACKGROUND
from apps.orgs import keys
from apps.orgs.models import ApiKey, Membership
from apps.policies.models import Budget, Policy, Price, Reservation
from tests.api.cast import NOBODYS_ID, Cast, error_of, unique

PRICE = {"provider": "simulated", "model": "sim-*", "input_nano_usd": 10**9, "output_nano_usd": 2 * 10**9}

pytestmark = pytest.mark.usefixtures("no_runtime_is_left")


def add(cast: Cast, kind: str, config: dict[str, Any], **fields: Any) -> Policy:
    given = {"organization": cast.organization, "name": unique(kind), "kind": kind, "config": config, **fields}
    policy = Policy(**given)
    policy.full_clean()
    policy.save()
    return policy


@pytest.fixture
def governed(cast: Cast) -> Cast:
    if not Price.objects.filter(**PRICE).exists():
        Price.objects.create(**PRICE)
    add(cast, "model_restriction", {"allow": ["sim-*"]})
    return cast


def ask(cast: Cast, by: str = "developer", **said: Any) -> dict[str, Any]:
    body = {"application": str(cast.application.id), "model": "sim-usage-1000-500", **said}
    answer = cast.by_role(by).post("policies/evaluate", body)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_an_allowed_request_is_explained_with_its_policies_its_route_and_what_it_could_cost(governed: Cast) -> None:
    said = ask(governed)
    assert (said["allowed"], said["status"], said["error"], said["reasons"]) == (True, 200, None, [])
    (policy,) = said["policies"]
    assert (policy["kind"], policy["version"], policy["mode"]) == ("model_restriction", 1, "enforce")
    assert policy["scope"] == {
        "level": "organization", "id": str(governed.organization.id), "name": governed.organization.name
    }  # fmt: skip
    assert policy["says"] == "Allows sim-*."
    assert said["route"] == [{"provider": "simulated", "model": "sim-usage-1000-500"}]
    assert said["cost"] == {"worst_case_usd": "0.002", "most_input_tokens": 1000, "most_output_tokens": 500}


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"model": "no-such-model"}, 404, "MODEL_NOT_FOUND"),
        ({"model": "sim-echo", "body": {"n": "two"}}, 400, "INVALID_REQUEST"),
        ({"model": "sim-echo", "body": {"tools": [{"type": "function"}]}}, 403, "FORBIDDEN"),
        ({"model": "sim-echo", "messages": [{"role": "user", "content": "a@example.com"}]}, 400, "PII_DETECTED"),
        ({"model": "sim-usage-1-200000"}, 429, "BUDGET_EXCEEDED"),
        ({"model": "sim-usage-5001-1"}, 429, "RATE_LIMIT_EXCEEDED"),
    ],
)
def test_a_refusal_is_the_one_that_the_request_would_meet(
    governed: Cast, said: dict[str, Any], status: int, code: str
) -> None:
    add(governed, "request_limits", {"features": {"tools": False}})
    add(governed, "guardrail", {"detectors": {"email": "block"}})
    add(governed, "rate_limit", {"tokens": 5000, "per": "hour"}, models=["sim-usage-5001-*"])
    add(governed, "cost_cap", {"limit_usd": "0.1", "per": "day"})
    answer = ask(governed, **said)
    assert (answer["allowed"], answer["status"], answer["error"]["code"]) == (False, status, code)
    assert code in [reason["code"] for reason in answer["reasons"]]


def test_nothing_is_counted_reserved_or_recorded(governed: Cast) -> None:
    add(governed, "rate_limit", {"requests": 3, "per": "hour", "concurrent": 1})
    add(governed, "cost_cap", {"limit_usd": "0.01", "per": "day"})
    answers = [ask(governed) for _ in range(5)]
    assert [answer["allowed"] for answer in answers] == [True] * 5
    requests, concurrent, budget = answers[-1]["limits"]
    assert (requests["remaining"], concurrent["remaining"]) == (3, 1)
    assert (budget["limit_usd"], budget["left_usd"]) == ("0.01", "0.01")
    mine = {"organization_id": governed.organization.id}
    assert not RequestRecord.objects.filter(**mine).exists()
    assert not OpenRequest.objects.filter(**mine).exists()
    assert not Budget.objects.filter(**mine).exists()
    assert not Reservation.objects.filter(budget__organization_id=governed.organization.id).exists()


def test_what_requests_have_used_is_missing_from_what_is_left(governed: Cast) -> None:
    add(governed, "rate_limit", {"requests": 1, "per": "hour"})
    add(governed, "cost_cap", {"limit_usd": "1", "per": "day"})
    body = {"model": "sim-usage-1000-500", "messages": [{"role": "user", "content": "x"}]}
    assert governed.application_key.call("POST", "/v1/chat/completions", body).status_code == 200
    answer = ask(governed)
    assert answer["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    requests, budget = answer["limits"]
    assert (requests["remaining"], budget["left_usd"]) == (0, "0.998")


def test_a_policy_in_shadow_is_named_and_refuses_nothing(governed: Cast) -> None:
    add(governed, "rate_limit", {"tokens": 10, "per": "hour"}, mode="shadow")
    add(governed, "request_limits", {"max_input_tokens": 10}, mode="shadow")
    answer = ask(governed)
    assert answer["allowed"]
    assert {(reason["code"], reason["enforced"]) for reason in answer["reasons"]} == {
        ("RATE_LIMIT_EXCEEDED", False), ("FORBIDDEN", False)
    }  # fmt: skip


def test_a_request_without_a_number_is_explained_with_the_limit_that_it_gets(governed: Cast) -> None:
    add(governed, "request_limits", {"max_output_tokens": 20})
    assert ask(governed)["cost"]["most_output_tokens"] == 20


def test_a_revoked_key_and_an_inactive_application_would_be_refused(governed: Cast) -> None:
    issued = keys.issue(organization=governed.organization, application=governed.application, name="old")
    ApiKey.objects.filter(pk=issued.row.pk).update(revoked_at=datetime.now(UTC))
    body = {"key": str(issued.row.pk), "model": "sim-echo"}
    answer = governed.developer.post("policies/evaluate", body).json()
    assert (answer["allowed"], answer["status"]) == (False, 401)


@pytest.mark.parametrize("by", ["admin", "developer", "auditor", "superadmin"])
def test_every_role_may_ask_about_its_own_organization(governed: Cast, by: str) -> None:
    assert ask(governed, by)["allowed"]


def subjects_of(cast: Cast) -> dict[str, str]:
    assert cast.application_key.key
    key = ApiKey.objects.get(application=cast.application)
    return {"application": str(cast.application.id), "user": str(cast.developer.user.id), "key": str(key.pk)}


@pytest.mark.parametrize("subject", ["application", "user", "key"])
def test_what_belongs_to_another_organization_is_not_there(governed: Cast, subject: str) -> None:
    for subject_id in (subjects_of(governed)[subject], NOBODYS_ID):
        body = {subject: subject_id, "model": "sim-echo"}
        error_of(governed.outsider.post("policies/evaluate", body), 404, "NOT_FOUND")
        error_of(governed.outsider.get("policies/effective", **{subject: subject_id}), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "application"),
        ({"application": NOBODYS_ID, "user": NOBODYS_ID, "model": "m"}, "user"),
        ({"application": "7", "model": "m"}, "application"),
        ({"application": 7, "model": "m"}, "application"),
        ({"user": NOBODYS_ID, "organization": "x", "model": "m"}, "organization"),
        ({"application": NOBODYS_ID, "colour": "red"}, "colour"),
    ],
)
def test_a_question_that_is_none_is_refused_by_the_fields_name(cast: Cast, said: Any, param: str) -> None:
    assert error_of(cast.admin.post("policies/evaluate", said), 400, "INVALID_REQUEST")["param"] == param


@pytest.mark.parametrize(("said", "param"), [({}, "model"), ({"body": []}, "body")])
def test_a_question_without_a_request_is_refused_by_the_fields_name(cast: Cast, said: Any, param: str) -> None:
    body = {"application": str(cast.application.id), **said}
    assert error_of(cast.admin.post("policies/evaluate", body), 400, "INVALID_REQUEST")["param"] == param


def test_an_application_key_may_not_ask(cast: Cast) -> None:
    error_of(cast.application_key.post("policies/evaluate", {}), 403, "FORBIDDEN")


def test_a_user_of_two_organizations_is_asked_about_in_one(governed: Cast) -> None:
    user = governed.developer.user
    Membership.objects.create(organization=governed.elsewhere, user=user, role="developer")
    body = {"user": str(user.id), "model": "sim-echo"}
    answer = governed.superadmin.post("policies/evaluate", body)
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "organization"
    in_one = body | {"organization": str(governed.organization.id)}
    assert governed.superadmin.post("policies/evaluate", in_one).json()["allowed"]
    assert governed.admin.post("policies/evaluate", body).json()["allowed"]  # sees the user in one alone


def test_the_effective_policies_come_with_where_each_is_from(governed: Cast) -> None:
    key = keys.issue(organization=governed.organization, application=governed.application, name="ci").row
    add(governed, "rate_limit", {"concurrent": 9}, application=governed.application, mode="shadow")
    add(governed, "rate_limit", {"concurrent": 8}, api_key=key, valid_from=datetime.now(UTC) + timedelta(days=1))
    add(governed, "cost_cap", {"limit_usd": "1", "per": "day"}, valid_until=datetime.now(UTC) - timedelta(days=1))
    add(governed, "rate_limit", {"concurrent": 7}, user=governed.developer.user)
    add(governed, "rate_limit", {"concurrent": 6}, mode="off")
    broken = add(governed, "rate_limit", {"concurrent": 5}, application=governed.application)
    Policy.objects.filter(pk=broken.pk).update(config={"concurrent": -5})
    found = governed.auditor.get("policies/effective", key=str(key.pk)).json()["results"]
    mine = [one for one in found if one["level"] != "platform"]
    assert [one["level"] for one in mine] == ["organization", "organization", "application", "application", "key"]
    assert sorted((one["kind"], one["mode"], one["state"]) for one in mine) == [
        ("cost_cap", "enforce", "ended"),
        ("model_restriction", "enforce", "holds"),
        ("rate_limit", "enforce", "broken"),
        ("rate_limit", "enforce", "not yet"),
        ("rate_limit", "shadow", "holds"),
    ]
    assert mine[-1]["scope"] == {"level": "key", "id": str(key.pk), "name": "ci"}


def test_a_server_answers_from_the_limits_that_its_requests_use() -> None:
    class Part:
        pass

    async def adopted() -> bool:
        part: Any = Part()
        BACKGROUND.stop()
        BACKGROUND.adopt(part)
        try:
            return BACKGROUND.runtime() is part and BACKGROUND.loop() is asyncio.get_running_loop()
        finally:
            BACKGROUND.release()

    assert asyncio.run(adopted())


def test_an_old_decision_is_decided_again_for_who_may_see_its_record(governed: Cast) -> None:
    add(governed, "request_limits", {"max_output_tokens": 5})
    body = {"model": "sim-echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 6}
    assert governed.application_key.call("POST", "/v1/chat/completions", body).status_code == 403
    record = RequestRecord.objects.get(organization_id=governed.organization.id)
    said = governed.auditor.get(f"audit-logs/{record.pk}/decision").json()
    assert (said["same"], said["allowed"], said["code"]) == (True, False, "FORBIDDEN")
    assert said["reasons"] == said["recorded"]
    error_of(governed.outsider.get(f"audit-logs/{record.pk}/decision"), 404, "NOT_FOUND")
