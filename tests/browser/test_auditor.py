"""An auditor's day in a browser: search words, save the search, export it, order a pack and check it."""

from pathlib import Path
from typing import Any

import pytest

from apps.audit.evidence_check import differences
from tests.admin.cast import gather, make_record, unique
from tests.browser.test_first_hour import log_in

pytestmark = pytest.mark.limit_seconds(180)


def test_an_auditor_finds_saves_exports_and_checks(page: Any, server: str, tmp_path: Path) -> None:
    cast, word = gather(), unique("refund").replace("-", "")
    for number in range(3):
        make_record(cast.home.organization, cast.home.application, f"{word} {number}", status="blocked")
    make_record(cast.foreign.organization, None, word)
    requests = f"{server}/admin/audit/requestrecord/"
    log_in(page, server, cast.people["auditor"])

    page.goto(requests)
    page.fill("[name=words]", f"{word} prompt")
    page.select_option("[name=status]", "blocked")
    page.click("button:has-text('Search')")
    page.wait_for_url("**/?*")
    assert page.locator("#result_list tbody tr").count() == 3
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0

    page.click("text=Save this search")
    page.fill("#id_name", word)
    page.click("button[name=_save]")
    page.wait_for_load_state()
    page.goto(requests)
    page.click(f"nav[aria-label='Saved searches'] >> text={word}")
    assert page.input_value("[name=words]") == f"{word} prompt"
    assert page.locator("#result_list tbody tr").count() == 3

    page.goto(f"{requests}?cost_min=free&since=2026-01-02&until=2026-01-01")
    assert "Must be US dollars" in page.inner_text("#changelist-search")
    assert "nothing lies in this period" in page.inner_text("#changelist-search")

    for link, kind, ending in (("Export", "records", "csv"), ("Evidence pack", "evidence", "zip")):
        page.goto(f"{requests}?words={word}")
        page.click(f"#changelist-search >> text='{link}'")
        assert page.locator(f"[name=kind][value={kind}]").is_checked()
        page.fill("#id_reason", "The yearly audit")
        page.click("button[name=_save]")
        page.wait_for_url("**/audit/export/*/change/")
        page.wait_for_selector(f"button:has-text('Download {ending}')")
        with page.expect_download() as download:
            page.click(f"button:has-text('Download {ending}')")
        download.value.save_as(tmp_path / f"file.{ending}")
    assert len((tmp_path / "file.csv").read_text().splitlines()) == 4
    assert list(differences(str(tmp_path / "file.zip"))) == []
