"""A long text is inspected on a thread of its own: what it takes is not everybody's wait."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.gateway import inspection
from tests.gateway.house import House, chat, pipeline, read_all, run

LOOP = threading.main_thread().name


@pytest.fixture
def scanned_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that scanned the texts of a request and of its answer, in that order."""
    threads: list[str] = []
    scan_all = inspection.scan_all

    def noted(texts: Sequence[str]) -> Any:
        threads.append(threading.current_thread().name)
        return scan_all(texts)

    monkeypatch.setattr(inspection, "scan_all", noted)
    return threads


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["whole", "streamed"])
@pytest.mark.parametrize("detectors", [{"email": "redact"}, {"email": "flag"}], ids=["held", "relayed"])
def test_a_long_answer_is_inspected_beside_the_loop_and_a_short_one_in_it(
    tmp_path: Path, scanned_by: list[str], detectors: dict[str, str], fields: dict[str, Any]
) -> None:
    house = House(policies=[("guardrail", {"detectors": detectors, "direction": "output"})])
    long = "word " * 60_000 + "jane@example.org"

    async def ask() -> list[bytes]:
        async with pipeline(tmp_path) as path:
            return [await read_all(await path.complete_chat(chat(house.key, text=t, **fields))) for t in ("hi", long)]

    answers = run(ask)
    assert [record.status for record in house.records()] == ["success", "success"], answers[0]
    prompt_and_answer = [name == LOOP for name in scanned_by]
    assert prompt_and_answer == [True, True, False, False]
    assert (b"jane@example.org" in answers[1]) is (detectors["email"] == "flag")
    (found,) = [one for one in house.records()[1].findings if one["where"] == "output"]
    assert (found["detector"], found["count"]) == ("email", 1)
    assert "jane@" not in house.text(house.records()[1].id).response_redacted
