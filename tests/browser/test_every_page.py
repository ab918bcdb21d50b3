"""Every page of the admin, opened once: what it may load, who can read and reach it, in light, in dark, on a phone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from apps.orgs.models import Membership, User
from apps.orgs.roles import Role
from apps.policies.models import Price
from tests.admin.cast import PASSWORD, address, build_house, unique
from tests.browser import axe, pages
from tests.browser.conftest import enter, opened
from tests.browser.test_first_hour import choose

pytestmark = pytest.mark.limit_seconds(600)
ASK = (Path(__file__).parent / "sweep.js").read_text()
WATCH = """
    window.shifted = 0;
    new PerformanceObserver(list => list.getEntries().forEach(one => { shifted += one.value; }))
        .observe({type: "layout-shift", buffered: true});
"""
WHOLE = "/admin/"
"""The page that is judged with the frame that every page has."""
MOST_MOVED = 0.01
"""How much of a page may move while it loads, as browsers reckon it; a tenth of what is called good."""


@dataclass
class Seen:
    """What a page showed."""

    policy: str
    complaints: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    hard_to_read: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    moved: float = 0
    overflow: int = 0


@pytest.fixture(scope="module")
def every_page(server: str, chromium: Any) -> dict[str, Seen]:
    """Open each page once, in another time zone, and ask everything while it is there.

    As an admin of an organization, who sees little else, or as a superadmin what that one may not see.
    """
    house = build_house("EVERY")
    Price.objects.create(model=unique("model"), input_nano_usd=1, output_nano_usd=2)
    admin, superadmin = User.objects.create_user(unique("admin")), User.objects.create_superuser(unique("root"))
    Membership.objects.create(user=admin, organization=house.organization, role=Role.ADMIN.value)
    seen: dict[str, Seen] = {}
    drawn: set[str] = set()
    with opened(chromium, 1280, timezone_id="Asia/Kolkata") as (page, complaints):
        page.add_init_script(WATCH)
        axe.bring(page)
        seen["/admin/login/"] = look(page, server, "/admin/login/", complaints, drawn)
        entered = None
        for person, path in pages.openable([(one, logged_in(one)) for one in (admin, superadmin)], house):
            if person != entered:
                enter(page, server, entered := person)
            seen[path] = look(page, server, path, complaints, drawn)
    return seen


def logged_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def look(page: Any, server: str, path: str, complaints: list[str], drawn: set[str]) -> Seen:
    """Open a page and ask it everything, in light on a wide screen and in dark on a phone's.

    Texts are judged in dark where none was ``drawn`` alike on an earlier page.
    """
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})
    answer = page.goto(server + path)
    seen = Seen(answer.headers.get("content-security-policy", ""))
    ask(page, "settled")
    seen.moved = ask(page, "moved")
    seen.untold = ask(page, "untold")
    ask(page, "thin")
    seen.unreachable = ask(page, "unreachable")
    frame = "" if path == WHOLE or not path.startswith("/admin/") else axe.FRAME
    seen.violations = axe.violations(page, frame) + ask(page, "undescribed")
    seen.unseen = ask(page, "unseen")
    page.emulate_media(color_scheme="dark")
    page.evaluate("() => document.documentElement.classList.add('dark')")
    page.set_viewport_size({"width": 390, "height": 900})
    if new := set(ask(page, "drawn", frame)) - drawn:
        seen.hard_to_read = axe.contrasts(page, frame)
        drawn |= new
    seen.violations += [f"on a phone: {one}" for one in axe.violations(page, frame, colours=False)]
    seen.overflow = ask(page, "overflow")
    seen.unreachable += ask(page, "unreachable")
    seen.complaints = list(complaints)
    complaints.clear()
    return seen


def ask(page: Any, question: str, about: str = "") -> Any:
    return page.evaluate(f"(about) => ({ASK}).{question}(about)", about)


def test_every_address_is_visited() -> None:
    assert pages.nameless() == []


def test_no_page_asks_for_what_the_policy_forbids(every_page: dict[str, Seen]) -> None:
    assert {path: seen.complaints for path, seen in every_page.items() if seen.complaints} == {}
    assert [path for path, seen in every_page.items() if "unsafe-inline" in (seen.policy or "unsafe-inline")] == []


def test_every_page_keeps_to_wcag_aa_on_a_wide_screen_and_on_a_phones(every_page: dict[str, Seen]) -> None:
    axe.source()
    assert {path: seen.violations for path, seen in every_page.items() if seen.violations} == {}


def test_every_text_is_readable_in_dark_on_a_phone(every_page: dict[str, Seen]) -> None:
    axe.source()
    assert {path: seen.hard_to_read for path, seen in every_page.items() if seen.hard_to_read} == {}


def test_every_action_is_reached_by_keyboard_and_shows_where_it_is(every_page: dict[str, Seen]) -> None:
    assert {path: seen.unreachable for path, seen in every_page.items() if seen.unreachable} == {}
    assert {path: seen.unseen for path, seen in every_page.items() if seen.unseen} == {}


def test_every_time_is_told_in_the_readers_zone_and_keeps_utc(every_page: dict[str, Seen]) -> None:
    assert {path: seen.untold for path, seen in every_page.items() if seen.untold} == {}


def test_nothing_moves_while_a_page_loads(every_page: dict[str, Seen]) -> None:
    assert {path: seen.moved for path, seen in every_page.items() if seen.moved > MOST_MOVED} == {}


def test_no_page_is_wider_than_a_phone(every_page: dict[str, Seen]) -> None:
    assert {path: seen.overflow for path, seen in every_page.items() if seen.overflow > 0} == {}


@pytest.mark.parametrize("page", [1280], indirect=True, ids=["desktop"])
def test_the_themes_moving_parts_work_under_the_policy(page: Any, server: str) -> None:
    """The list's actions, its filters by keyboard, suggestions, the reference's foldings."""
    superadmin, house = User.objects.create_superuser(unique("root"), PASSWORD), build_house("MOVING")
    enter(page, server, superadmin)
    page.goto(server + address(type(house.application), "changelist"))
    page.check("#result_list tbody input.action-select >> nth=0")
    page.wait_for_selector("#changelist-actions .action-counter")
    assert page.locator("#changelist-actions").bounding_box()["width"] > 200
    page.focus("a:text('Filters')")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.closest('#changelist-filter')")
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.innerText").startswith("Filters")
    page.goto(server + address(type(house.application), "add"))
    choose(page, "organization", house.organization.name)
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--color-primary-600').trim()")
    assert page.evaluate("document.querySelectorAll('style').length") == 0
    page.goto(f"{server}/v1/docs")
    page.click("summary >> nth=0")


def test_a_time_is_the_readers_own_and_utc_without_a_script(chromium: Any, server: str) -> None:
    superadmin, house = User.objects.create_superuser(unique("root"), PASSWORD), build_house("TIMES")
    utc = f"{house.record.timestamp:%Y-%m-%d %H:%M:%S}"
    for scripts, said in ((True, "+05:30"), (False, "UTC")):
        with opened(chromium, 1280, timezone_id="Asia/Kolkata", java_script_enabled=scripts) as (page, _):
            enter(page, server, superadmin)
            page.goto(server + address(type(house.record), "change", house.record.pk))
            shown = page.locator("time").first
            assert shown.get_attribute("title") == f"UTC {utc}"
            assert shown.is_visible()
            assert shown.inner_text().split()[-1] == said
            assert shown.inner_text().startswith(utc) is not scripts
