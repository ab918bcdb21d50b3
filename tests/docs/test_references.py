"""What the documents point to is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import Resolver404, resolve

from apps.gateway.asgi import _ROUTES
from apps.orgs.rest.views import NotFound
from tests.docs.documents import ROOT, Document, documents

_FOLDERS = r"(?:apps|controlplane|tests|docs|bench|templates|static|infra|\.ci|\.github)/"
_PATH = re.compile(rf"{_FOLDERS}[\w./-]*\w|(?<![\w/.])[\w.-]+\.(?:md|toml|in|txt|json|yml)(?![\w/])")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_MAKE = re.compile(r"(?:^|[\s`])make ([a-z][a-z-]*)")
_MANAGE = re.compile(r"manage\.py ([a-z_]+)")
_ADDRESS = re.compile(r"https?://127\.0\.0\.1:8000(/[^\s'\"?]*)")
_MADE_AT_RUN_TIME = {".demo.json", "secrets.json", "rejected.txt", "openapi.json"}

every_document = pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)


@every_document
def test_every_link_leads_somewhere(document: Document) -> None:
    for link in document.links():
        name, _, anchor = link.partition("#")
        target = (document.path.parent / name).resolve() if name else document.path
        assert target.exists(), link
        assert not anchor or anchor in Document(target).anchors(), link


@every_document
def test_every_path_that_is_named_exists(document: Document) -> None:
    text = re.sub(r"\]\([^)]*\)", "]", document.text)  # links are read from the document's own folder
    named = {name.strip("/") for name in _PATH.findall(text)} - _MADE_AT_RUN_TIME
    assert {name for name in named if not (ROOT / name).exists()} == set()


@every_document
def test_every_test_that_is_named_exists(document: Document) -> None:
    named = set(_TEST.findall(document.text))
    assert {(path, name) for path, name in named if name not in _functions(ROOT / path)} == set()


@every_document
def test_every_make_target_that_is_named_exists(document: Document) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([*document.fences(), *(f"`{code}`" for code in document.code())])
    assert set(_MAKE.findall(code)) <= targets


@every_document
def test_every_command_that_is_named_exists(document: Document) -> None:
    assert set(_MANAGE.findall(document.text)) <= get_commands().keys()


@every_document
def test_every_address_in_an_example_is_served(document: Document) -> None:
    served = {path for _, path in _ROUTES}
    for address in _ADDRESS.findall("\n".join(document.fences())):
        assert address in served or _is_served_by_django(address), address


def test_decisions_are_numbered_without_gaps_and_named_for_their_title() -> None:
    files = sorted((ROOT / "docs" / "decisions").iterdir())
    assert [file.name[:4] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for file in files:
        text = file.read_text()
        assert text.startswith(f"# {file.name[:4]}: ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE)[0] == "Context"
        assert {"## Decision\n", "## Consequences\n"} <= set(re.findall(r"^## .+\n", text, re.MULTILINE))


def test_the_map_names_every_package() -> None:
    text = Document(ROOT / "README.md").section("Map")
    packages = [path for path in (ROOT / "apps").iterdir() if (path / "apps.py").exists()]
    assert packages
    assert [path.name for path in packages if f"apps/{path.name}/" not in text] == []


@cache
def _functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _is_served_by_django(address: str) -> bool:
    try:
        match = resolve(address)
    except Resolver404:
        return False
    return getattr(match.func, "view_class", None) is not NotFound
