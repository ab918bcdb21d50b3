"""The journal's promises: together or apart, each member once; nothing durable is lost; nobody waits for ever."""

import asyncio
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.db import InternalError, OperationalError
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction

from apps.audit.journal import LATER, SPOOLED, Journal, JournalUnavailable, Steps
from apps.audit.spool import Spool
from apps.audit.writer import LARGEST_GROUP


@dataclass
class Line:
    """A member: a text to be written."""

    text: str
    durable: bool = False


class Book:
    """Stands where the gateway's bookkeeping stands: runs inside the journal's real transaction."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.groups: list[int] = []
        self.undone: list[str] = []
        self.away = False
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def run(self, connection: Any, members: Sequence[Line]) -> list[Any]:
        self.gate.wait(10)
        if self.away:
            raise OperationalError("the database is away")
        if self.error is not None:
            raise self.error
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if any(m.text == "poison" for m in members):
            raise ValueError("this member cannot be written")
        self.written += [m.text for m in members]
        self.groups.append(len(members))
        return [m.text.upper() for m in members]

    def undo(self, member: Line, result: Any) -> None:
        self.undone.append(member.text)

    def steps(self) -> Steps:
        return Steps(
            run=self.run,
            run_free=self.run,
            undo=self.undo,
            dump=lambda m: json.dumps({"text": m.text}),
            load=lambda line: Line(json.loads(line)["text"], durable=True),
        )


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def journal(book: Book, tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(book.steps(), Spool(tmp_path), wait_seconds=1.0)
    yield journal
    book.gate.set()
    journal.stop()


def post_all(journal: Journal, *members: Line) -> list[Any]:
    async def together() -> list[Any]:
        return await asyncio.gather(*(journal.post(m) for m in members), return_exceptions=True)

    return asyncio.run(together())


def test_a_member_is_committed_before_its_waiter_goes_on(journal: Journal, book: Book) -> None:
    assert post_all(journal, Line("a")) == ["A"]
    assert book.written == ["a"]


def test_what_waits_together_is_committed_together(journal: Journal, book: Book) -> None:
    book.gate.clear()
    threading.Timer(0.2, book.gate.set).start()
    post_all(journal, *(Line(str(n)) for n in range(50)))
    assert sorted(book.written, key=int) == [str(n) for n in range(50)]
    assert len(book.groups) <= 3


def test_one_bad_member_does_not_fail_its_neighbours(journal: Journal, book: Book) -> None:
    book.gate.clear()
    threading.Timer(0.2, book.gate.set).start()
    results = post_all(journal, Line("first"), *(Line(str(n)) for n in range(9)), Line("poison"), Line("last"))
    assert isinstance(results[10], JournalUnavailable)
    assert [r for r in results if isinstance(r, Exception)] == [results[10]]
    assert set(book.written) == {"first", "last", *map(str, range(9))}


def test_an_intent_is_refused_while_the_database_is_away(journal: Journal, book: Book) -> None:
    book.away = True
    assert isinstance(post_all(journal, Line("a"))[0], JournalUnavailable)
    assert book.written == []


def test_a_durable_member_is_spooled_and_replayed_when_the_database_is_back(journal: Journal, book: Book) -> None:
    book.away = True
    assert post_all(journal, Line("kept", durable=True)) == [SPOOLED]
    assert journal.spooled() == 1
    book.away = False
    post_all(journal, Line("wake"))
    until(lambda: "kept" in book.written)
    until(lambda: journal.spooled() == 0)


def test_a_durable_member_that_the_database_never_takes_is_kept_for_a_person(journal: Journal, tmp_path: Path) -> None:
    assert post_all(journal, Line("poison", durable=True)) == [SPOOLED]
    assert json.loads((tmp_path / "rejected.txt").read_text()) == {"text": "poison"}


def test_a_waiter_gives_up_after_its_time_and_a_late_commit_is_undone(journal: Journal, book: Book) -> None:
    book.gate.clear()

    async def give_up_then_open() -> None:
        with pytest.raises(JournalUnavailable):
            await journal.post(Line("late"))
        book.gate.set()
        await asyncio.sleep(0.5)

    asyncio.run(give_up_then_open())
    assert book.undone == ["late"]


def test_an_intent_whose_waiter_left_before_the_writer_came_is_never_written(journal: Journal, book: Book) -> None:
    book.gate.clear()

    async def leave() -> None:
        first = asyncio.ensure_future(journal.post(Line("first")))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(journal.post(Line("second")))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.sleep(0)
        book.gate.set()
        await first
        await asyncio.sleep(0.3)

    asyncio.run(leave())
    assert book.written == ["first"]


def test_stopping_writes_everything_that_waits(journal: Journal, book: Book) -> None:
    for n in range(20):
        journal.post_soon(Line(str(n), durable=True))
    journal.stop()
    assert len(book.written) == 20


def test_a_journal_that_was_stopped_starts_again_on_use(journal: Journal, book: Book) -> None:
    post_all(journal, Line("a"))
    journal.stop()
    assert post_all(journal, Line("b")) == ["B"]


def test_a_spool_of_a_dead_process_is_picked_up(book: Book, tmp_path: Path) -> None:
    (tmp_path / "999-dead.jsonl").write_text('{"text": "left behind"}\n{"text": "torn')
    journal = Journal(book.steps(), Spool(tmp_path), wait_seconds=1.0)
    post_all(journal, Line("wake"))
    until(lambda: "left behind" in book.written)
    journal.stop()
    assert not any("torn" in text for text in book.written)


def test_a_spool_of_a_living_process_is_left_alone(book: Book, tmp_path: Path) -> None:
    other = Spool(tmp_path)
    other.append(['{"text": "not yours"}'])
    journal = Journal(book.steps(), Spool(tmp_path), wait_seconds=1.0)
    post_all(journal, Line("wake"))
    journal.stop()
    assert book.written == ["wake"]


def test_a_read_only_database_is_away_and_spools_what_must_not_be_lost(
    journal: Journal, book: Book, tmp_path: Path
) -> None:
    book.error = InternalError("cannot execute INSERT in a read-only transaction")
    book.error.__cause__ = ReadOnlySqlTransaction()
    results = post_all(journal, Line("kept", durable=True), Line("refused"))
    assert results[0] is SPOOLED
    assert isinstance(results[1], JournalUnavailable)
    assert not (tmp_path / "rejected.txt").exists()
    book.error = None
    until(lambda: "kept" in book.written)


def test_without_database_and_disk_a_durable_member_waits_in_memory(book: Book, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.write_text("a file stands where the folder should be")
    journal = Journal(book.steps(), Spool(folder), wait_seconds=1.0)
    book.away = True
    assert post_all(journal, Line("kept", durable=True)) == [SPOOLED]
    assert journal.spooled() == 1
    book.away = False
    until(lambda: book.written == ["kept"])
    until(lambda: journal.spooled() == 0)
    journal.stop()


def test_a_member_that_neither_database_nor_disk_takes_does_not_end_the_journal(book: Book, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.write_text("a file stands where the folder should be")
    journal = Journal(book.steps(), Spool(folder), wait_seconds=1.0)
    post_all(journal, Line("poison", durable=True))
    assert post_all(journal, Line("next")) == ["NEXT"]
    journal.stop()


def test_a_spooled_line_that_cannot_be_written_or_read_does_not_hold_up_the_others(book: Book, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in ("before", "poison", "after")]
    (tmp_path / "999-dead.jsonl").write_text("\n".join([*lines, "no JSON", json.dumps({"text": "last"}), ""]))
    journal = Journal(book.steps(), Spool(tmp_path), wait_seconds=1.0)
    post_all(journal, Line("wake"))
    until(lambda: {"before", "after", "last"} <= set(book.written))
    until(lambda: not list(tmp_path.glob("*.jsonl")))
    journal.stop()
    assert set((tmp_path / "rejected.txt").read_text().splitlines()) == {lines[1], "no JSON"}


def test_new_work_goes_before_the_replay_of_old_and_the_spool_takes_more(book: Book, tmp_path: Path) -> None:
    old = [json.dumps({"text": f"old {number}"}) for number in range(LARGEST_GROUP * 3)]
    (tmp_path / "999-dead.jsonl").write_text("".join(f"{line}\n" for line in old))

    def run_free(connection: Any, members: Sequence[Line]) -> list[Any]:
        if not book.written[1:]:  # it is under way: something comes in, and something is spooled
            journal.post_soon(Line("new", durable=True))
            journal._spool.append([json.dumps({"text": "spooled during the replay"})])
        return book.run(connection, members)

    journal = Journal(replace(book.steps(), run_free=run_free), Spool(tmp_path), wait_seconds=1.0)
    post_all(journal, Line("wake"))
    until(lambda: len(book.written) == len(old) + 3)
    journal.stop()
    assert book.written.index("new") == LARGEST_GROUP + 1


def test_half_a_line_that_the_disk_took_spoils_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(["first"])
    with file_size_limit(next(tmp_path.glob("*.jsonl")).stat().st_size + 3), pytest.raises(OSError, match="large"):
        spool.append(["too long for the disk"])
    spool.append(["second"])
    assert [line for page in spool.pages() for line in page.lines] == ["first", "second"]


def test_a_forked_child_spools_to_a_file_of_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(["parent"])
    child = os.fork()
    if child == 0:
        spool.append(["child"])
        os._exit(0)
    os.waitpid(child, 0)
    pages = list(spool.pages())
    assert [page.lines for page in pages] == [["parent"], ["child"]]


def test_an_intent_that_was_left_while_the_journal_stops_is_taken_back(journal: Journal, book: Book) -> None:
    def undo(member: Line, result: Any) -> Line | None:
        return None if member.durable else Line(f"undo {member.text}", durable=True)

    journal._steps = replace(journal._steps, undo=undo)
    book.gate.clear()

    async def leave_and_stop() -> None:
        left = asyncio.ensure_future(journal.post(Line("left")))
        await asyncio.sleep(0.2)
        left.cancel()
        threading.Timer(0.2, book.gate.set).start()
        await asyncio.get_running_loop().run_in_executor(None, journal.stop)

    asyncio.run(leave_and_stop())
    assert book.written == ["left", "undo left"]


def test_what_needs_a_locked_row_waits_aside_while_the_others_go_on(book: Book, tmp_path: Path) -> None:
    locked = {"locked"}

    def run(connection: Any, members: Sequence[Line]) -> list[Any]:
        if locked & {m.text for m in members}:
            error = OperationalError("canceling statement due to lock timeout")
            error.__cause__ = LockNotAvailable()
            raise error
        return book.run(connection, members)

    def run_free(connection: Any, members: Sequence[Line]) -> list[Any]:
        results = iter(book.run(connection, [m for m in members if m.text not in locked]))
        found = [LATER if m.text in locked else next(results) for m in members]
        if {"a", "b"} <= set(book.written):
            locked.clear()
        return found

    journal = Journal(replace(book.steps(), run=run, run_free=run_free), Spool(tmp_path), wait_seconds=5.0)
    results = post_all(journal, *(Line(text) for text in ("a", "locked", "b")))
    journal.stop()
    assert results == ["A", "LOCKED", "B"]
    assert book.written == ["a", "b", "locked"]


def test_what_waits_while_the_database_hangs_is_spooled_when_the_journal_stops(journal: Journal, book: Book) -> None:
    book.gate.clear()
    for text in ("under way", "waiting"):
        journal.post_soon(Line(text, durable=True))
    journal.stop(timeout=0.2)
    spooled = {json.loads(line)["text"] for page in journal._spool.pages() for line in page.lines}
    assert spooled == {"under way", "waiting"}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(200):
        if condition():
            return
        pause.wait(0.05)
    assert condition()
