"""The OpenAPI document as a page to read, with no script in it and nothing from another host."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from apps.orgs.rest.openapi import schema

_METHODS = ("get", "post", "put", "patch", "delete")
_PREFIX = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Type:
    """What a value may be: words, and the name of the object that it is or holds, if it has one of its own."""

    words: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A field, a parameter or a header."""

    name: str
    type: Type
    place: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one status means."""

    status: str
    description: str
    type: Type | None
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address."""

    id: str
    method: str
    path: str
    description: str
    parameters: tuple[Field, ...]
    body: Type | None
    answers: tuple[Answer, ...]


def page(_request: HttpRequest) -> HttpResponse:
    """Serve the page, to anyone."""
    return HttpResponse(_rendered())


@cache
def _rendered() -> str:
    document = schema()
    return render_to_string(
        "control_plane/reference.html",
        {
            "title": document["info"]["title"],
            "version": document["info"]["version"],
            "description": document["info"]["description"],
            "schemes": document["components"]["securitySchemes"],
            "groups": _groups(document),
            "objects": [(name, _fields(one), one) for name, one in sorted(document["components"]["schemas"].items())],
        },
    )


def _groups(document: Mapping[str, Any]) -> list[tuple[str, list[Operation]]]:
    """Return the operations by tag, inference first."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                tag = methods[method]["tags"][0]
                groups.setdefault(tag, []).append(_operation(path, method, methods[method]))
    return sorted(groups.items(), key=lambda group: (group[0] != "inference", group[0]))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Operation:
    body = operation.get("requestBody")
    return Operation(
        operation["operationId"],
        method.upper(),
        path,
        operation.get("description") or operation.get("summary", ""),
        tuple(
            Field(one["name"], _type(one["schema"]), one["in"], one.get("required", False), one.get("description", ""))
            for one in operation.get("parameters", ())
        ),
        _content(body) if body else None,
        tuple(_answers(operation["responses"])),
    )


def _answers(answers: Mapping[str, Any]) -> Iterator[Answer]:
    for status, answer in sorted(answers.items()):
        yield Answer(status, answer.get("description", ""), _content(answer), tuple(answer.get("headers", ())))


def _content(of: Mapping[str, Any]) -> Type | None:
    content = of.get("content", {}).get("application/json")
    return _type(content["schema"]) if content else None


def _fields(one: Mapping[str, Any]) -> list[Field]:
    required = one.get("required", ())
    return [
        Field(name, _type(field), _when(field), name in required, field.get("description", ""))
        for name, field in one.get("properties", {}).items()
    ]


def _when(field: Mapping[str, Any]) -> str:
    if field.get("readOnly"):
        return "answers"
    return "requests" if field.get("writeOnly") else ""


def _type(one: Mapping[str, Any]) -> Type:
    """Return a schema in words."""
    if "$ref" in one:
        name = one["$ref"].removeprefix(_PREFIX)
        return Type(name, name)
    parts = [part for kind in ("allOf", "oneOf", "anyOf") for part in one.get(kind, ()) if part.get("enum") != [None]]
    if parts:
        found = [_type(part) for part in parts]
        return Type(" or ".join(part.words for part in found), found[0].name)
    if one.get("type") == "array":
        items = _type(one["items"])
        return Type(f"list of {items.words}", items.name)
    words = str(one.get("format") or one.get("type") or "anything")
    if "enum" in one:
        words = ", ".join(str(value) for value in one["enum"])
    return Type(words + (" or null" if one.get("nullable") else ""))
