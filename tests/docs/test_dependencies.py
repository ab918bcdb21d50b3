"""Every dependency of our own choice has its reason written down."""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution

import pytest

from tests.docs.documents import ROOT, document, quoted, table_rows

DECISION = document("docs/decisions/0007-dependencies.md")
_NAME = re.compile(r"^([a-z0-9][a-z0-9-]*)", re.IGNORECASE)
_BROUGHT_ALONG = {"hiredis"}  # by redis[hiredis]


def rows(section: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table_rows(DECISION.section(section))[1:]}


def names(text: str) -> set[str]:
    return {found[1].lower() for line in text.splitlines() if (found := _NAME.match(line))}


def test_the_tables_hold_exactly_what_is_chosen() -> None:
    required, _, chosen = (ROOT / "requirements.in").read_text().partition("\n\n")
    assert required
    assert rows("Production").keys() == names(chosen) | _BROUGHT_ALONG
    assert rows("Servers").keys() == names((ROOT / "requirements-server.in").read_text())
    assert rows("Tests, linters, benchmarks").keys() == names((ROOT / "requirements-dev.in").read_text())


EVERYTHING = {**rows("Production"), **rows("Servers"), **rows("Tests, linters, benchmarks")}


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_a_dependency_has_its_reason_licence_upkeep_and_weight(name: str) -> None:
    why, licence, upkeep, weight = EVERYTHING[name]
    assert len(why) > 10
    assert re.search(r"MIT|Apache|BSD|MPL", licence)
    assert re.fullmatch(r"(?:below )?\d+\.\d MiB", weight)
    pinned = re.search(r", (\d+\.\d+)\b", upkeep)
    assert pinned
    assert f"{distribution(name).version}.".startswith(f"{pinned[1]}.")


def test_what_is_said_to_be_unused_is() -> None:
    unused = {name for name, cells in rows("Production").items() if cells[0].startswith("Not used")}
    sources = [path.read_text() for folder in ("apps", "controlplane") for path in (ROOT / folder).rglob("*.py")]
    for name in unused:
        assert not any(re.search(rf"^\s*(?:import|from) {name}\b", source, re.MULTILINE) for source in sources), name


def test_what_could_be_dropped_is_named_in_the_decision() -> None:
    droppable = {name for name, cells in rows("Production").items() if "Could be dropped" in cells[0]}
    decided = DECISION.section("Decision").partition("Left out")[0]
    assert droppable == set(quoted(decided))


def test_what_is_too_heavy_for_lambda_is_imported_where_it_is_used_alone_and_kept_out_of_the_package() -> None:
    """Everything imports without it, so it may be absent; and Zappa leaves it out of whatever environment it packs."""
    excluded = json.loads((ROOT / "zappa_settings.json").read_text())["base"]["exclude"]
    for name in rows("Servers"):
        assert {name, f"{name}-*"} <= set(excluded)
        code = f"import sys; sys.modules['{name}'] = None; import django; django.setup(); import controlplane.urls"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
        pinned = (ROOT / "requirements.txt").read_text()
        assert f"\n{name}==" not in pinned
