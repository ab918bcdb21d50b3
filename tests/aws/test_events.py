"""Events that are no requests: our own are worked on, everything else is refused and nothing is executed."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from apps.audit.models import OpenRequest, RequestRecord
from tests.aws.conftest import StartFunction, Tenant, full_environment
from tests.aws.events import http_api, schedule
from tests.aws.function import FunctionError, LambdaFunction
from tests.services.database_roles import there_are_roles


def test_migrations_are_applied_by_an_event_and_only_once(start: StartFunction, empty_database_url: str) -> None:
    function = start(full_environment(empty_database_url))
    first = function.invoke({"type": "user-migration"})
    second = function.invoke({"type": "user-migration"})
    assert (first["type"], first["status"]) == ("user-migration", "ok")
    assert "audit.0001_initial" in first["applied"]
    assert second["applied"] == []
    assert first["fenced"] is second["fenced"] is there_are_roles()
    assert function.invoke(http_api("GET", "/health/ready"))["statusCode"] == 200


@pytest.mark.parametrize(
    "event",
    [{"type": "ensure-partitions"}, schedule("controlplane.lambda_work.ensure_partitions")],
    ids=["event", "schedule"],
)
def test_a_missing_partition_is_created(start: StartFunction, empty_database_url: str, event: Any) -> None:
    function = start(full_environment(empty_database_url))
    function.invoke({"type": "user-migration"})
    partition = f"audit_requesttext_{datetime.now(UTC):%Y_%m}"
    with psycopg.connect(empty_database_url.replace("postgres://", "postgresql://", 1), autocommit=True) as connection:
        connection.execute(f'DROP TABLE "{partition}"')
    assert function.invoke(event) == {"type": "ensure-partitions", "status": "ok", "created": [partition]}


@pytest.mark.parametrize(
    "event", [{"type": "sweep"}, schedule("controlplane.lambda_work.sweep")], ids=["event", "schedule"]
)
def test_a_request_whose_process_was_killed_is_resolved(
    function: LambdaFunction, start: StartFunction, shared_database_url: str, tenant: Tenant, event: Any
) -> None:
    killed = start(full_environment(shared_database_url))
    body = {"model": "sim-slow-20000", "messages": [{"role": "user", "content": "Hello"}]}
    killed.send(http_api("POST", "/v1/chat/completions", body, authorization=f"Bearer {tenant.key}"))
    left_open = OpenRequest.objects.filter(organization_id=tenant.organization.id)
    while not left_open.exists():
        time.sleep(0.05)
    killed.stop()
    left_open.update(deadline=timezone.now() - timedelta(minutes=1))
    answer = function.invoke(event)
    assert (answer["type"], answer["status"]) == ("sweep", "ok")
    assert answer["resolved"] >= 1
    assert RequestRecord.objects.get(organization_id=tenant.organization.id).status == "interrupted"


@pytest.mark.parametrize(
    "event", [{"type": "tell"}, schedule("controlplane.lambda_work.tell")], ids=["event", "schedule"]
)
def test_alerts_are_told(function: LambdaFunction, event: Any) -> None:
    answer = function.invoke(event)
    assert (answer["type"], answer["status"]) == ("tell", "ok")
    assert answer["tried"] >= 0


def test_a_keep_warm_schedule_is_answered(function: LambdaFunction) -> None:
    assert function.invoke(schedule("handler.keep_warm_callback")) == {"type": "keep-warm", "status": "ok"}


def commands(trace: Path) -> list[dict[str, Any]]:
    """Return events that Zappa's own handler would execute; each would leave a file."""
    code = f"open({str(trace)!r}, 'w')"
    sns = {"Sns": {"Message": '{"command": "os.getcwd"}', "TopicArn": "arn:aws:sns:eu-central-1:1:t"}}
    return [
        {"raw_command": code},
        {"command": "os.getcwd"},
        {"manage": "createsuperuser"},
        {**http_api("GET", "/health"), "raw_command": code},
        {"type": "sweep", "command": "os.getcwd"},
        {"type": "request", "Records": [sns]},
        {"Records": [sns]},
        {"Records": [{"s3": {"configurationId": "x:os.getcwd"}}]},
        schedule("os.getcwd"),
    ]


@pytest.mark.parametrize("number", range(9))
def test_nothing_that_an_event_carries_is_executed(function: LambdaFunction, tmp_path: Path, number: int) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(FunctionError) as refused:
        function.invoke(commands(trace)[number])
    assert refused.value.kind == "PermissionError"
    assert not trace.exists()


@pytest.mark.parametrize("event", [{}, [], "sweep", None, {"type": "nonsense"}, {"type": []}, {"type": "request"}])
def test_an_unknown_event_is_refused(function: LambdaFunction, event: Any) -> None:
    with pytest.raises(FunctionError) as refused:
        function.invoke(event)
    assert refused.value.kind == "PermissionError"
