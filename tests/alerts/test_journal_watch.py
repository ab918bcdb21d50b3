"""The alert that the journal spools is told once for all processes of a server, whichever of them dies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apps.alerts import journal
from apps.alerts.journal import JournalWatch, Note
from apps.audit.journal import Journal
from apps.audit.models import Alert
from tests.alerts.telling import destination
from tests.services.receiver import Receiver


class Spooling:
    """What a watch asks of a journal."""

    records = 1

    def spooled(self) -> int:
        return self.records


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that the platform's alerts of journals go to."""
    with Receiver() as receiver:
        made = destination(None, url=receiver.url, kinds=["journal_spooling"])
        yield receiver
        made.delete()


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, settings: Any) -> Path:
    settings.SPOOL_DIR = str(tmp_path)
    return tmp_path


def a_watch(spooling: Spooling | None = None) -> JournalWatch:
    """Return one that knows whom to tell, and has looked once."""
    watch = JournalWatch(0, cast("Journal", spooling or Spooling()))
    watch.catch_up()
    watch.work()
    return watch


def test_two_processes_tell_once(receiver: Receiver) -> None:
    one, two = a_watch(), a_watch()
    for watch in (one, two, one, two):
        watch.work()
    assert len(receiver.received) == 1


def test_what_a_process_claimed_and_could_not_tell_another_tells(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = a_watch(), a_watch()
    receiver.script.append(500)
    one.work()  # and dies
    two.work()
    assert len(receiver.received) == 1  # it is not its turn yet
    monkeypatch.setattr(journal, "AGAIN_AFTER", 0.0)
    three = a_watch()
    for watch in (three, two, three):
        watch.work()
    first, second = (came.json["alerts"][0] for came in receiver.received)
    assert first["id"] == second["id"]


def test_the_end_is_stored_with_what_was_told_once_nothing_is_spooled(receiver: Receiver, spool: Path) -> None:
    spooling = Spooling()
    (spool / "1.jsonl").write_text("{}\n")
    watch = a_watch(spooling)
    watch.work()
    spooling.records = 0
    watch.work()
    watch.catch_up()
    assert Note.read() is not None  # another process's records wait still
    (spool / "1.jsonl").unlink()
    watch.catch_up()
    (told,) = receiver.received[0].json["alerts"]
    raised = Alert.objects.get(pk=told["id"])
    assert raised.told_at is not None
    assert raised.resolved_at is not None
    assert Alert.objects.filter(state="resolved", details__raised_id=told["id"]).exists()
    assert Note.read() is None
