"""Names that people type: any script and any sign, but nothing that hides."""

import pytest

from apps.orgs.models import Application, Organization, User
from tests.admin.cast import Cast, address, errors, filled, unique

HIDING = ["\u200b", "\u202e", "\u2066", "\ufeff", "\u00ad", "\x07", "\u2028"]
HONEST = [
    "<script>alert(1)</script>",
    "'; DROP TABLE users; --",
    "\u05e9\u05dc\u05d5\u05dd",  # Hebrew, from right to left
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with the joiner that it needs
    "\U0001f469\u200d\U0001f4bb",  # one emoji of two, joined
    "{{ 7*7 }}",
]


@pytest.mark.parametrize("character", HIDING, ids=[f"U+{ord(c):04X}" for c in HIDING])
def test_a_name_with_a_character_that_cannot_be_seen_is_refused(onlookers: Cast, character: str) -> None:
    response = filled(onlookers.browser("admin"), address(Application, "add"), name=f"pay{character}ments")
    assert "cannot be seen" in errors(response)["name"][0]


@pytest.mark.parametrize("text", HONEST)
def test_a_name_in_any_script_is_kept_as_it_is_and_shown_as_text(cast: Cast, text: str) -> None:
    client, name = cast.browser("admin"), f"{text} {unique('n')}"
    assert filled(client, address(Application, "add"), name=name).status_code == 302
    row = Application.objects.get(name=name)
    for url in (address(row, "changelist"), address(row, "change", row.pk), address(row, "history", row.pk)):
        assert "<script>alert" not in client.get(url).content.decode()


def test_a_row_that_has_such_a_name_already_can_still_be_changed(cast: Cast) -> None:
    row = Application.objects.create(organization=cast.home.organization, name=unique("a\u200bb"))
    assert filled(cast.browser("admin"), address(row, "change", row.pk), is_active=None).status_code == 302
    row.refresh_from_db()
    assert not row.is_active


def test_capital_letters_do_not_make_another_organization_or_user(cast: Cast) -> None:
    client, home = cast.browser("superadmin"), cast.home
    for model, field, taken in (
        (Organization, "name", home.organization.name),
        (User, "username", home.user.username),
    ):
        response = filled(client, address(model, "add"), **{field: taken.swapcase()})
        assert "already exists" in errors(response)[field][0]


def test_the_way_to_a_page_shows_a_name_as_it_is_written(cast: Cast) -> None:
    row = Application.objects.create(organization=cast.home.organization, name=unique("lower"))
    assert f"<bdi>{row.name}</bdi>" in cast.browser("admin").get(address(row, "change", row.pk)).content.decode()
