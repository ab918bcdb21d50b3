"""The journal's promises: together or apart, each member once; nothing durable is lost; nobody waits for ever."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from apps.audit.journal import SPOOLED, Journal, JournalUnavailable, Steps
from apps.audit.spool import Spool


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
        self.gate = threading.Event()
        self.gate.set()

    def run(self, connection: Any, members: Sequence[Line]) -> list[Any]:
        self.gate.wait(10)
        if self.away:
            raise OperationalError("the database is away")
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


def until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(200):
        if condition():
            return
        pause.wait(0.05)
    assert condition()
