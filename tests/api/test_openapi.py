import json
import re
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client, override_settings

from apps.orgs.rest.openapi import ABOUT_ONE
from tests.admin.conftest import PLAIN_STATIC
from tests.api.collections import SAMPLES

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    answer = Client().get("/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def test_the_document_is_valid_and_complete_to_its_generator() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=StringIO())


def test_the_document_is_of_version_three(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_every_collection_is_described(document: dict[str, Any], sample: Any) -> None:
    paths = document["paths"]
    assert set(paths[f"/v1/admin/{sample.path}"]) & METHODS == {"get", "post"}
    assert set(paths[f"/v1/admin/{sample.path}/{{id}}"]) & METHODS == {"get", "put", "patch", "delete"}


@pytest.mark.parametrize(
    "path",
    ["keys/{id}/revoke", "keys/{id}/rotate", "policies/{id}/versions", "policies/evaluate", "policies/effective",
     "audit-logs", "audit-logs/{id}", "audit-logs/{id}/decision", "audit-logs/{id}/explanation", "changes",
     "exports", "exports/{id}", "exports/{id}/cancel", "exports/{id}/download",
     "policies/{id}/draft", "policies/{id}/publish", "policies/{id}/rollback",
     "metrics/usage"],
)  # fmt: skip
def test_what_is_beside_the_collections_is_described(document: dict[str, Any], path: str) -> None:
    assert f"/v1/admin/{path}" in document["paths"]


def test_inference_is_described(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert set(paths) >= {"/v1/chat/completions", "/v1/models", "/v1/models/{model}"}
    assert "404" in paths["/v1/models/{model}"]["get"]["responses"]


def test_every_operation_asks_for_a_key_and_describes_its_refusal(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    for operation in operations:
        assert operation["security"] == [{"ApiKey": []}]
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}


def test_the_filters_of_the_audit_log_are_described(document: dict[str, Any]) -> None:
    names = {one["name"] for one in document["paths"]["/v1/admin/audit-logs"]["get"]["parameters"]}
    assert names >= {"organization", "status", "model", "since", "until", "limit", "cursor", "metadata"}


def test_secrets_go_in_and_never_come_out(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["User"]["properties"]["password"]["writeOnly"] is True
    assert schemas["Credential"]["properties"]["secret"]["writeOnly"] is True
    assert "key" not in schemas["Key"]["properties"]
    assert "digest" not in json.dumps(document)


def test_every_write_describes_its_headers_and_its_refusals(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not path.startswith("/v1/admin/"):
                continue
            assert {"400", "401", "403", "503"} <= operation["responses"].keys()
            headers = {one["name"] for one in operation.get("parameters", []) if one["in"] == "header"}
            is_kept = method == "post" and not path.endswith("/evaluate")
            is_about_one = path.endswith(ABOUT_ONE)
            is_a_write = is_kept or method in {"put", "patch", "delete"}
            assert ("Idempotency-Key" in headers) is ("422" in operation["responses"]) is is_kept
            assert ("If-Match" in headers) is ("412" in operation["responses"]) is (is_a_write and is_about_one)
            for status, answer in operation["responses"].items():
                is_one = status in {"200", "201"} and (is_about_one or is_kept)
                assert ("ETag" in answer["headers"]) is is_one, (path, method, status)


def test_the_page_shows_every_operation_and_object_without_script_or_style(document: dict[str, Any]) -> None:
    with override_settings(STORAGES=PLAIN_STATIC):
        answer = Client().get("/v1/docs")
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "unsafe" not in answer["content-security-policy"]
    assert not re.search(r"<script|<style|style=|https?://", text)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f'id="{operation["operationId"]}"' in text
            assert f'<b class="{method}">{method.upper()}</b> <code>{path}</code>' in text
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors
    assert {f"object-{name}" for name in document["components"]["schemas"]} <= anchors
