"""An organization's page leads to all that it has."""

from typing import Any

import pytest

from tests.admin.cast import Cast, address


def parts(cast: Cast, role: str) -> dict[str, Any]:
    organization = cast.home.organization
    page = cast.browser(role).get(address(organization, "change", organization.pk))
    return {part.title: part for part in page.context["contents"]}


def test_it_counts_what_the_organization_has_and_nothing_of_others(cast: Cast) -> None:
    for role in ("superadmin", "admin"):
        counts = {title: part.count for title, part in parts(cast, role).items()}
        assert counts == {
            "Applications": 1,
            "API keys": 1,
            "Policies": 2,
            "Provider credentials": 1,
            "Model routes": 1,
            "Alert destinations": 1,
            "Requests": None,
        }


@pytest.mark.parametrize("role", ["superadmin", "admin", "developer", "auditor"])
def test_every_way_that_it_offers_opens_and_shows_the_organizations_own(onlookers: Cast, role: str) -> None:
    client = onlookers.browser(role)
    for part in parts(onlookers, role).values():
        shown = client.get(part.list)
        assert shown.status_code == 200, part.list
        rows = shown.context["rows"] if "cl" not in shown.context else shown.context["cl"].result_list
        assert onlookers.foreign.marker not in str(list(rows))
        assert len(rows) >= 1
        assert not part.add or client.get(part.add).status_code == 200


def test_it_offers_to_a_role_only_what_the_role_may_see_and_add(onlookers: Cast) -> None:
    assert "Provider credentials" not in parts(onlookers, "developer")
    assert [title for title, part in parts(onlookers, "developer").items() if part.add] == ["API keys"]
    assert [title for title, part in parts(onlookers, "auditor").items() if part.add] == []
