"""The OpenAPI document as a source of requests, good and broken, and as the judge of answers."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from hypothesis import strategies as st

Schema = Mapping[str, Any]
_PREFIX = "#/components/schemas/"

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(["", " ", "x" * 5000, "'; DROP TABLE orgs_user; --", "\u202e", "0000-00-00", "%00", "../.."]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
"""Values that hardly any field takes."""
LINE = st.text(string.ascii_letters + string.digits + " -_.äß\u4e2d", min_size=1, max_size=20)


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    about: Schema

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def collection(self) -> str:
        return self.path.removeprefix("/v1/admin/").split("/")[0]

    def parameters(self, place: str) -> list[Schema]:
        return [one for one in self.about.get("parameters", []) if one["in"] == place]

    @property
    def body(self) -> Schema | None:
        body = self.about.get("requestBody")
        return body["content"]["application/json"]["schema"] if body else None


class Document:
    """What the document says."""

    def __init__(self, document: Schema) -> None:
        self._schemas = document["components"]["schemas"]
        self.operations = {str(one): one for one in sorted(_operations(document), key=str)}

    def requests(self, schema: Schema, known: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        """Return values that fit a schema. ``known``: better values than the schema knows, by the field's name."""
        if "$ref" in schema:
            return self.requests(self._schemas[schema["$ref"].removeprefix(_PREFIX)], known)
        parts = [part for kind in ("oneOf", "anyOf", "allOf") for part in schema.get(kind, ())]
        if parts:
            values = st.one_of([self.requests(part, known) for part in parts])
        elif "enum" in schema:
            values = st.sampled_from(schema["enum"])
        elif schema.get("type") == "array":
            values = st.lists(self.requests(schema["items"], known), max_size=2)
        elif "properties" in schema:
            values = self._objects(schema, known)
        else:
            values = _BY_TYPE.get(schema.get("type", ""), _objects_of_anything)(schema)
        return st.one_of(st.none(), values) if schema.get("nullable") else values

    def _objects(self, schema: Schema, known: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        fields = {
            name: known.get(name, self.requests(field, known))
            for name, field in schema["properties"].items()
            if not field.get("readOnly")
        }
        needed = {name: one for name, one in fields.items() if name in schema.get("required", [])}
        return st.fixed_dictionaries(needed, optional={name: one for name, one in fields.items() if name not in needed})

    def complaint(self, operation: Operation, status: int, body: Any, kind: str = "application/json") -> str:
        """Return what is wrong with an answer, or an event of one, as the document has it, or nothing."""
        answer = operation.about["responses"].get(str(status))
        if answer is None:
            return f"the status {status} is not described"
        content = answer.get("content")
        if content is None:
            return "" if body is None else "an answer without a body has one"
        schema = self._strict(content[kind]["schema"])
        problems = jsonschema.Draft202012Validator(schema, format_checker=_FORMATS).iter_errors(body)
        return "; ".join(f"{problem.json_path}: {problem.message[:200]}" for problem in problems)

    def _strict(self, schema: Schema) -> Any:
        """Return an answer's schema as JSON Schema has it, which allows no field that is not described."""
        if "$ref" in schema:
            return self._strict(self._schemas[schema["$ref"].removeprefix(_PREFIX)])
        made: dict[str, Any] = {name: value for name, value in schema.items() if name in _KEPT}
        for kind in ("oneOf", "anyOf", "allOf"):
            if kind in schema:
                made[kind] = [self._strict(part) for part in schema[kind]]
        if "items" in schema:
            made["items"] = self._strict(schema["items"])
        if "properties" in schema:
            shown = {name: one for name, one in schema["properties"].items() if not one.get("writeOnly")}
            made["properties"] = {name: self._strict(one) for name, one in shown.items()}
            made["required"] = [name for name in schema.get("required", []) if name in shown]
            made["additionalProperties"] = bool(schema.get("additionalProperties"))
        return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def _operations(document: Schema) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            yield Operation(method.upper(), path, about)


def _texts(schema: Schema) -> st.SearchStrategy[Any]:
    form = schema.get("format")
    if form == "uuid":
        return st.uuids().map(str)
    if form == "date-time":
        return st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    if form == "decimal":
        return st.decimals(0, 1000, places=2).map(str)
    if form == "email":
        return LINE.map(lambda name: f"{name.strip().replace(' ', '')}@example.org")
    return LINE.map(lambda line: line[: schema.get("maxLength", 20)])


def _objects_of_anything(_: Schema) -> st.SearchStrategy[Any]:
    return st.dictionaries(LINE, JUNK, max_size=2)


_BY_TYPE = {
    "string": _texts,
    "boolean": lambda _: st.booleans(),
    "integer": lambda schema: st.integers(schema.get("minimum", 0), min(schema.get("maximum", 99), 99)),
    "number": lambda _: st.floats(0, 99),
}
_KEPT = {"type", "enum", "format", "maxLength", "minLength", "maximum", "minimum", "pattern"}
_FORMATS = jsonschema.FormatChecker(["uuid", "date-time", "email"])
