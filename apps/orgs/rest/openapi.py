"""The OpenAPI document: what the views cannot say of themselves, and the view that serves it."""

from functools import cache
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse
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
ETAG = {"description": "What the object is now; for If-Match.", "schema": {"type": "string"}}
REPLAYED = {"description": "true: the first answer to this Idempotency-Key.", "schema": {"type": "string"}}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "Write only if the object still has this ETag (or one of several). Left out, or *: in any case.",
    "schema": {"type": "string", "example": '"5d41402a"'},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your own name for this piece of work. Sent again within 24 hours, it is done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
ADMIN = "/v1/admin/"
ABOUT_ONE = ("}", "/revoke", "/rotate", "/retry", "/cancel", "/draft", "/publish", "/rollback")
"""How the addresses end whose operations are about one object, as it is seen or unless it has changed."""
_REFUSALS = {
    "400": "A field, a parameter or a header is wrong; param names it.",
    "401": "No valid key.",
    "403": "The role, or the kind of key, does not allow it.",
    "404": "There is no such object, or it is not yours to see.",
    "409": "It conflicts with what is stored, or the first request with this Idempotency-Key has no answer to repeat.",
    "412": "The object has changed since it had the ETag of If-Match.",
    "413": "The body is too large.",
    "415": "The body is not JSON, or is compressed.",
    "422": "The Idempotency-Key was used for another request.",
    "503": "The database does not answer; Retry-After says when to try again.",
}


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
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            if path.startswith(ADMIN):
                _complete_of_admin(path, method, operation)
            _complete(operation)
    _link_to_what_was_made(result["paths"])
    return result


def _complete_of_admin(path: str, method: str, operation: dict[str, Any]) -> None:
    """Say which headers an operation of the admin API reads and answers with, and how it refuses."""
    is_about_one = path.endswith(ABOUT_ONE)
    is_kept = method == "post" and not path.endswith("/evaluate")
    is_a_write = is_kept or method in {"put", "patch", "delete"}
    parameters = operation.setdefault("parameters", [])
    answers = operation["responses"]
    if is_a_write and is_about_one:
        parameters.append(IF_MATCH)
    if is_kept:
        parameters.append(IDEMPOTENCY_KEY)
    for answer in answers.values():
        answer["description"] = answer.get("description") or "Done."
        headers = answer.setdefault("headers", {})
        headers |= {"ETag": ETAG} if (is_about_one and method != "delete") or is_kept else {}
        headers |= {"Idempotency-Replayed": REPLAYED} if is_kept else {}
    refused = {"400", "401", "403", "503"}
    refused |= {"404"} if "{" in path or path.startswith(f"{ADMIN}policies/e") else set()
    refused |= {"413", "415"} if method in {"post", "put", "patch"} else set()
    refused |= {"409"} if is_a_write else set()
    refused |= {"412"} if is_a_write and is_about_one else set()
    refused |= {"422"} if is_kept else set()
    for status in sorted(refused):
        answers.setdefault(status, {"description": _REFUSALS[status]})


def _link_to_what_was_made(paths: dict[str, Any]) -> None:
    """Say of each answer that something was made which operations take its id (OpenAPI 3.0.3, "Link Object")."""
    for path, methods in paths.items():
        made = methods.get("post", {}).get("responses", {}).get("201")
        about = [one for of, found in paths.items() if of.startswith(f"{path}/{{id}}") for one in found.values()]
        if made is not None and about:
            made["links"] = {
                one["operationId"]: {"operationId": one["operationId"], "parameters": {"id": "$response.body#/id"}}
                for one in about
            }


def _complete(operation: dict[str, Any]) -> None:
    operation["security"] = [{ApiKeyScheme.name: []}]
    answers = operation["responses"]
    answers.setdefault("default", {"description": "Refused or failed."})
    for status, answer in answers.items():
        if not status.startswith("2"):
            answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        answer.setdefault("headers", {})["x-request-id"] = REQUEST_ID


def document(_request: HttpRequest) -> HttpResponse:
    """Serve the document as JSON, to anyone."""
    return HttpResponse(_written(), content_type="application/json")


@cache
def _written() -> bytes:
    return orjson.dumps(schema(), default=str)


@cache
def schema() -> dict[str, Any]:
    """Return the document. It is made once for a process: it takes a good part of a second, and needs no key."""
    generator: Any = SchemaGenerator  # its package has no types
    made: dict[str, Any] = generator().get_schema(request=None, public=True)
    return made
