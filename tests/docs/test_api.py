"""The API's document against the code."""

import ast
import json
import re
from pathlib import Path

import pytest

from apps.gateway.errors import GatewayError
from apps.gateway.simulated import read_model
from apps.policies.engine.kinds import DETECTORS, Kind, parse_config
from controlplane import api_urls
from tests.docs.documents import ROOT, document, quoted, table_rows

API = document("docs/api.md")
POLICIES = API.text.partition("### Policies\n")[2].partition("\n### ")[0]
REFUSALS = API.text.partition("### Refusals")[2].partition("\n### ")[0]


def test_every_kind_of_policy_has_an_example_that_is_one() -> None:
    examples = {quoted(row[0])[0]: json.loads(quoted(row[1])[0]) for row in table_rows(POLICIES)[1:]}
    assert examples.keys() == {kind.value for kind in Kind}
    for kind, config in examples.items():
        parse_config(kind, config)


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_is_named(detector: str) -> None:
    assert f"`{detector}`" in POLICIES


def test_the_codes_of_refusals_are_those_of_the_code() -> None:
    named = {code for row in table_rows(REFUSALS)[1:] for code in quoted(row[1])}
    own = {error.__dict__["code"] for error in _errors(GatewayError) if "code" in error.__dict__}
    assert own | {GatewayError.code} <= named
    assert named <= _constants(ROOT / "apps" / "gateway") | _constants(ROOT / "apps" / "policies" / "engine")


def test_every_simulated_model_is_one() -> None:
    section = API.text.partition("### The simulated provider\n")[2].partition("\n## ")[0]
    for row in table_rows(section)[1:]:
        assert read_model(re.sub(r"<\w+>", "500", quoted(row[0])[0])) is not None


def test_every_collection_is_named() -> None:
    for prefix, _, _ in api_urls.router.registry:
        assert re.search(rf"\b{prefix}\b", API.section("Admin")), prefix


def _errors(base: type[GatewayError]) -> list[type[GatewayError]]:
    return [error for child in base.__subclasses__() for error in (child, *_errors(child))]


def _constants(folder: Path) -> set[str]:
    nodes = [node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return {str(node.value) for node in nodes if isinstance(node, ast.Constant) and str(node.value).isupper()}
