"""Events as API Gateway and EventBridge send them."""

import base64
import json
from typing import Any

CLIENT = "203.0.113.7"
HOST = "abcdefghij.execute-api.eu-central-1.amazonaws.com"


def http_api(method: str, path: str, body: Any = None, *, stage: str = "$default", **headers: str) -> dict[str, Any]:
    """Make a request in payload format 2.0 (HTTP APIs). ``headers`` are named with underscores."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": _headers(headers),
        "requestContext": {"stage": stage, "http": {"method": method, "path": path, "sourceIp": CLIENT}},
        "isBase64Encoded": False,
        **({} if body is None else {"body": json.dumps(body)}),
    }


def rest_api(method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
    """Make a request in payload format 1.0 (REST APIs)."""
    sent = _headers(headers)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"stage": "dev", "identity": {"sourceIp": CLIENT}},
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": None if body is None else json.dumps(body),
    }


def in_base64(event: dict[str, Any]) -> dict[str, Any]:
    """Encode an event's body, as API Gateway does with what it takes for binary."""
    return {**event, "isBase64Encoded": True, "body": base64.b64encode(event["body"].encode()).decode()}


def schedule(function: str) -> dict[str, Any]:
    """Make a schedule's event as Zappa's rules send it: the rule's name ends with the function's."""
    rule = f"arn:aws:events:eu-central-1:123456789012:rule/llm-control-plane-dev-{function}"
    return {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "resources": [rule], "kwargs": {}}


def _headers(headers: dict[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"host": HOST, "content-type": "application/json", "x-forwarded-for": CLIENT, **named}
