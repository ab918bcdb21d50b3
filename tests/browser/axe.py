"""The rules of WCAG as axe-core knows them, run in a page."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.services.npm import install

FOLDER = Path(__file__).parents[1] / "services" / "axe"
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
FRAME = "#nav-sidebar"
"""What every page has again: judged where a page is judged whole."""
_RUN = """async ([only, without, rules]) => {
    const context = without ? {exclude: [[without]]} : document;
    const {violations} = await axe.run(context, {runOnly: only, rules, resultTypes: ["violations"], preload: false});
    return violations.flatMap(found => found.nodes.map(
        node => [found.id, found.help, node.html.slice(0, 240), ...node.any.map(one => one.message)].join(": ")));
}"""


@cache
def source() -> str:
    """Return axe-core's script. Skips the test where npm's package cannot be had."""
    install(FOLDER, "npm's axe-core")
    return (FOLDER / "node_modules" / "axe-core" / "axe.min.js").read_text()


@cache
def is_there() -> bool:
    """Whether axe-core is, or can be had."""
    try:
        source()
    except pytest.skip.Exception:
        return False
    return True


def bring(page: Any) -> None:
    """Have each document that a page opens from here on bring axe-core along: quicker than to send it each time."""
    if is_there():
        page.add_init_script(source())


def violations(page: Any, without: str = "", *, colours: bool = True) -> list[str]:
    """Return what WCAG at level AA finds wrong in the page as it stands, ``without`` a part judged elsewhere."""
    return _found(page, {"type": "tag", "values": LEVELS}, without, {"color-contrast": {"enabled": colours}})


def contrasts(page: Any, without: str = "") -> list[str]:
    """Return which texts of the page as it stands are hard to read against their ground: what dark differs in."""
    return _found(page, {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}, without, {})


def _found(page: Any, only: dict[str, Any], without: str, rules: dict[str, Any]) -> list[str]:
    if not is_there():
        return []
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(source())  # past the Content-Security-Policy, which forbids a page to load it
    page.evaluate("() => document.getAnimations().forEach(one => one.finish())")
    return list(page.evaluate(_RUN, [only, without, rules]))
