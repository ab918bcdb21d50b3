"""Times in the admin's pages: each says its zone, and a browser can tell the reader's."""

from datetime import UTC, datetime, timedelta, timezone

from apps.audit.moments import moment
from apps.orgs.models import Application
from tests.admin.cast import Cast, address


def test_a_time_says_utc_whatever_zone_it_came_in() -> None:
    html = moment(datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))))
    assert 'datetime="2026-02-28T22:30:00Z"' in html
    assert 'title="UTC 2026-02-28 22:30:00"' in html
    assert "2026-02-28 22:30:00 <span" in html
    assert html.count("UTC") == 2


def test_a_lists_column_and_a_field_that_is_only_shown_tell_times_and_sort_by_them(cast: Cast) -> None:
    browser, created = cast.browser("superadmin"), cast.home.application.created_at.astimezone(UTC)
    told = f'datetime="{created:%Y-%m-%dT%H:%M:%SZ}"'
    listed = browser.get(address(Application, "changelist"), {"o": "-3", "q": cast.home.marker}).content.decode()
    assert told in listed
    assert "Created at" in listed
    assert told in browser.get(address(Application, "change", cast.home.application.pk)).content.decode()
