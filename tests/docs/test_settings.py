"""The README's table of settings against the code that reads them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.aws_secrets import _READERS
from tests.docs.documents import ROOT, document, quoted, table_rows

FILES = sorted(path for folder in ("controlplane", "apps") for path in (ROOT / folder).rglob("*.py"))
SETTINGS = ROOT / "controlplane" / "settings.py"


def rows() -> dict[str, str]:
    """The default of each variable, as the table has it."""
    table = table_rows(document("README.md").section("Settings"))[1:]
    return {quoted(name)[0]: default for name, default, _ in table}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def read_by_settings() -> dict[str, ast.expr]:
    """Each variable that the settings read, with the expression of its default."""
    found = {}
    for call in calls(SETTINGS):
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "env":
            assert isinstance(call.args[0], ast.Constant)
            found[str(call.args[0].value)] = next(k.value for k in call.keywords if k.arg == "default")
    return found


def read_elsewhere(path: Path) -> set[str]:
    """Each variable that a file reads from os.environ under a name of its own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        named: ast.expr | None = None
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv"):
            named = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            named = node.slice
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            named = node.left
        if isinstance(named, ast.Constant):
            found.add(str(named.value))
    return found


def shown(value: Any) -> str:
    """A default as the table writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def possible_defaults(expression: ast.expr) -> set[str]:
    """What a default can be: in development and in production, with and without Redis; empty ones left out."""
    code = compile(ast.Expression(expression), "default", "eval")
    values = set()
    for production in (False, True):
        for redis in ("", "$REDIS_URL"):
            names: dict[str, Any] = {
                "PRODUCTION": production,
                "REDIS_URL": redis,
                "BASE_DIR": Path(),
                "DATA_DIR": Path("$DATA_DIR"),
                "_development_secrets": {},
            }
            values.add(shown(eval(code, {}, names)))
    return values - {""}


def test_the_table_lists_exactly_the_variables_that_are_read() -> None:
    read = read_by_settings().keys() | set(_READERS).union(*map(read_elsewhere, FILES))
    assert sorted(rows()) == sorted(read)


@pytest.mark.parametrize("name", sorted(read_by_settings()))
def test_the_default_in_the_table_is_the_one_in_the_code(name: str) -> None:
    assert set(quoted(rows()[name])) == possible_defaults(read_by_settings()[name])


def test_what_is_read_outside_the_settings_has_no_default() -> None:
    elsewhere = rows().keys() - read_by_settings().keys()
    assert {rows()[name] for name in elsewhere} == {"none"}
