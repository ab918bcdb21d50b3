"""Names that programs send: the rules of the admin's forms hold for them too."""

import pytest

from apps.orgs.models import Application
from tests.admin.test_names import HIDING, HONEST
from tests.api.cast import Cast, error_of, unique


@pytest.mark.parametrize("character", HIDING, ids=[f"U+{ord(c):04X}" for c in HIDING])
def test_a_name_with_a_character_that_cannot_be_seen_is_refused(cast: Cast, character: str) -> None:
    organization, name = str(cast.organization.id), f"pay{character}ments"
    for caller, path, body, param in (
        (cast.admin, "applications", {"organization": organization, "name": name}, "name"),
        (cast.admin, "keys", {"application": str(cast.application.id), "name": name}, "name"),
        (cast.superadmin, "users", {"username": name}, "username"),
        (cast.superadmin, "organizations", {"name": name}, "name"),
    ):
        error = error_of(caller.post(path, body), 400, "INVALID_REQUEST")
        assert error["param"] == param
        assert "cannot be seen" in error["message"] or character == "\x07"


@pytest.mark.parametrize("text", HONEST)
def test_a_name_in_any_script_is_kept_as_it_is(cast: Cast, text: str) -> None:
    name = f"{text} {unique('n')}"
    made = cast.admin.made("applications", {"organization": str(cast.organization.id), "name": name})
    assert made["name"] == name


def test_a_row_that_has_such_a_name_already_can_still_be_changed(cast: Cast) -> None:
    row = Application.objects.create(organization=cast.organization, name=unique("a\u200bb"))
    assert cast.admin.patch(f"applications/{row.id}", {"name": row.name, "is_active": False}).status_code == 200
    error_of(cast.admin.patch(f"applications/{row.id}", {"name": row.name + "\u200b"}), 400, "INVALID_REQUEST")


def test_capital_letters_do_not_make_another_organization_or_user(cast: Cast) -> None:
    for path, field in (("organizations", "name"), ("users", "username")):
        name = unique("taken")
        made = cast.superadmin.made(path, {field: name})
        error = error_of(cast.superadmin.post(path, {field: name.swapcase()}), 400, "INVALID_REQUEST")
        assert error["param"] == field
        assert name not in error["message"]
        assert cast.superadmin.patch(f"{path}/{made['id']}", {field: name.upper()}).status_code == 200
        other = cast.superadmin.made(path, {field: unique("other")})
        error_of(cast.superadmin.patch(f"{path}/{other['id']}", {field: name}), 400, "INVALID_REQUEST")
