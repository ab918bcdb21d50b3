"""Requests through API Gateway: the same answers and records as through any other door, before the freeze."""

import json
from typing import Any

import pytest

from apps.audit.models import OpenRequest, RequestRecord
from tests.aws.conftest import StartFunction, Tenant, full_environment
from tests.aws.events import http_api, in_base64, rest_api
from tests.aws.function import LambdaFunction

PATH = "/v1/chat/completions"


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "sim-echo", "messages": [{"role": "user", "content": text}], **fields}


def bearer(tenant: Tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant.key}"}


def content(answer: dict[str, Any]) -> str:
    return str(json.loads(answer["body"])["choices"][0]["message"]["content"])


def only_record(tenant: Tenant) -> RequestRecord:
    assert not OpenRequest.objects.filter(organization_id=tenant.organization.id).exists()
    return RequestRecord.objects.get(organization_id=tenant.organization.id)


@pytest.mark.parametrize("make_event", [http_api, rest_api])
def test_a_chat_is_answered_and_recorded_before_the_process_freezes(
    function: LambdaFunction, tenant: Tenant, make_event: Any
) -> None:
    answer = function.invoke(make_event("POST", PATH, chat("Grüße, 世界"), **bearer(tenant)))
    record = only_record(tenant)
    assert (answer["statusCode"], content(answer)) == (200, "Grüße, 世界")
    assert (record.status, record.http_status, record.streamed) == ("success", 200, False)
    assert answer["headers"]["x-request-id"] == str(record.id)


def test_a_body_in_base64_is_decoded(function: LambdaFunction, tenant: Tenant) -> None:
    answer = function.invoke(in_base64(http_api("POST", PATH, chat("Hello"), **bearer(tenant))))
    assert (answer["statusCode"], content(answer)) == (200, "Hello")


def test_a_stream_is_answered_whole_and_recorded_before_the_process_freezes(
    function: LambdaFunction, tenant: Tenant
) -> None:
    body = chat("Hello", stream=True) | {"model": "sim-stream-5"}
    answer = function.invoke(http_api("POST", PATH, body, **bearer(tenant)))
    record = only_record(tenant)
    events = [line for line in answer["body"].split("\n\n") if line]
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"].startswith("text/event-stream")
    assert not answer["isBase64Encoded"]
    assert all(event.startswith("data: ") for event in events)
    assert len(events) > 5
    assert events[-1] == "data: [DONE]"
    assert (record.status, record.streamed) == ("success", True)


def test_without_a_key_nothing_is_answered_or_recorded(function: LambdaFunction) -> None:
    before = RequestRecord.objects.count()
    answer = function.invoke(http_api("POST", PATH, chat("Hello")))
    assert answer["statusCode"] == 401
    assert json.loads(answer["body"])["error"]["code"] == "UNAUTHENTICATED"
    assert RequestRecord.objects.count() == before


def test_a_refusal_is_recorded_before_the_process_freezes(function: LambdaFunction, tenant: Tenant) -> None:
    answer = function.invoke(http_api("POST", PATH, chat("Hello") | {"model": "sim-error-500"}, **bearer(tenant)))
    assert answer["statusCode"] == 502
    assert (only_record(tenant).status, only_record(tenant).error_code) == ("error", "PROVIDER_ERROR")


def test_a_frozen_process_holds_no_place_among_concurrent_requests(
    function: LambdaFunction, tenant: Tenant, start: StartFunction, shared_database_url: str
) -> None:
    tenant.add_policy("rate_limit", {"concurrent": 1})
    event = http_api("POST", PATH, chat("Hello"), **bearer(tenant))
    another = start(full_environment(shared_database_url))
    assert [one.invoke(event)["statusCode"] for one in (function, another, function)] == [200, 200, 200]


def test_the_stage_in_the_path_is_not_part_of_the_address(function: LambdaFunction, tenant: Tenant) -> None:
    answer = function.invoke(http_api("GET", "/dev/v1/models", stage="dev", **bearer(tenant)))
    assert answer["statusCode"] == 200


@pytest.mark.parametrize("make_event", [http_api, rest_api])
def test_nobody_poses_as_this_machine_by_leaving_out_a_header(function: LambdaFunction, make_event: Any) -> None:
    event = make_event("GET", "/metrics")
    del event["headers"]["x-forwarded-for"]
    event.pop("multiValueHeaders", None)
    assert function.invoke(event)["statusCode"] == 403


def test_stage_variables_do_not_change_the_environment(start: StartFunction, shared_database_url: str) -> None:
    function = start({**full_environment(shared_database_url), "METRICS_TOKEN": "m" * 32})
    event = http_api("GET", "/metrics", authorization=f"Bearer {'m' * 32}")
    event["stageVariables"] = {"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}
    assert function.invoke(event)["statusCode"] == 200


def test_an_address_s_query_is_not_logged(start: StartFunction, shared_database_url: str) -> None:
    function = start(full_environment(shared_database_url))
    event = http_api("GET", "/health") | {"rawQueryString": "code=an-authorization-code"}
    assert function.invoke(event)["statusCode"] == 200
    assert "an-authorization-code" not in function.log.read_text()
