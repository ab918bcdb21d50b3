"""The OpenAPI document: what the views cannot say of themselves, and the view that serves it."""

from functools import cache
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "details"],
            "properties": {
                "message": {"type": "string", "description": "For people; never quotes what was refused."},
                "type": {"type": "string"},
                "param": {"type": "string", "nullable": True, "description": "The field or parameter at fault."},
                "code": {"type": "string", "description": "For programs, such as INVALID_REQUEST."},
                "details": {"type": "object", "additionalProperties": True, "description": "Messages by field."},
            },
        }
    },
}
REQUEST_ID = {"description": "The answer's id.", "schema": {"type": "string", "format": "uuid"}}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its package has no types
    """How a key is presented."""

    target_class = "apps.orgs.rest.authentication.ApiKeyAuthentication"
    name = "ApiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the security scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "lcp_…",
            "description": "An API key, below /v1/admin a user's; or an ID or access token of the identity provider.",
        }


def complete(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Say what holds for every operation: its refusals' shape, its answers' id, and that it needs a key.

    A postprocessing hook of drf-spectacular.
    """
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = ERROR_SCHEMA
    for methods in result["paths"].values():
        for operation in methods.values():
            _complete(operation)
    return result


def _complete(operation: dict[str, Any]) -> None:
    operation["security"] = [{ApiKeyScheme.name: []}]
    answers = operation["responses"]
    answers.setdefault("default", {"description": "Refused or failed."})
    for status, answer in answers.items():
        if not status.startswith("2"):
            answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        answer.setdefault("headers", {})["x-request-id"] = REQUEST_ID


@require_safe
def document(_request: HttpRequest) -> HttpResponse:
    """Serve the document as JSON, to anyone."""
    return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    # Made once for a process: it takes a good part of a second, and the address needs no key.
    generator: Any = SchemaGenerator  # its package has no types
    schema = generator().get_schema(request=None, public=True)
    return orjson.dumps(schema, default=str)
