"""Every dependency of our own choice has its reason written down."""

import re
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
    assert rows("Tests, linters, benchmarks").keys() == names((ROOT / "requirements-dev.in").read_text())


@pytest.mark.parametrize("name", sorted({**rows("Production"), **rows("Tests, linters, benchmarks")}))
def test_a_dependency_has_its_reason_licence_upkeep_and_weight(name: str) -> None:
    why, licence, upkeep, weight = {**rows("Production"), **rows("Tests, linters, benchmarks")}[name]
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
