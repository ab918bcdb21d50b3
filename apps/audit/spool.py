"""A local file for final records that the database would not take: appended, fsynced, replayed when it is back.

Each process writes files of its own and holds a lock on each, so that another process picks up the files of a dead
one and never those of a living one. A replay that is repeated does no harm: what it inserts is inserted once.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from uuid import uuid4

logger = logging.getLogger(__name__)


class Page:
    """A file of lines, under a lock of ours that ends with the process."""

    def __init__(self, path: Path, file: IO[bytes], lines: Sequence[str] = ()) -> None:
        self.path = path
        self.file = file
        self.lines = lines
        self.removed = False

    def remove(self) -> None:
        """Delete it: all of its lines are somewhere better."""
        self.path.unlink(missing_ok=True)
        self.file.close()
        self.removed = True


class Spool:
    """Lines of text, safe on disk when `append` returns. May be used from any thread, and after a fork."""

    _pid: int
    _lock: threading.Lock
    _current: Page | None
    _aside: list[Page]
    pending: int
    """How many lines of this process wait on disk. One number, so that a reader needs no lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forget()

    def append(self, lines: Sequence[str]) -> None:
        """Write lines (without newlines in them) and wait for the disk. Raises `OSError` if it does not take them."""
        self._ensure_own()
        with self._lock:
            self._current = self._current or self._open()
            _append(self._current.file, "".join(f"{line}\n" for line in lines).encode())
            self.pending += len(lines)

    def reject(self, line: str) -> None:
        """Keep a line that the database will never take, apart, for a person to look at. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "rejected.txt").open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _append(file, f"{line}\n".encode())

    def pages(self) -> Iterator[Page]:
        """Yield, one after another, what this process wrote so far and what dead processes left.

        A page that the reader does not remove comes again next time. Appending goes on meanwhile, to a new file.
        """
        self._ensure_own()
        self._set_aside()
        yield from self._aside
        with self._lock:
            self._drop_removed()
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []:
            if not self._is_ours(path):
                yield from _claimed(path)

    def _ensure_own(self) -> None:
        if self._pid != os.getpid():
            self._forget()  # a forked child has its parent's file and shares the lock: it is the parent's to replay

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._current = None
        self._aside = []
        self.pending = 0

    def _open(self) -> Page:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{os.getpid()}-{uuid4().hex}.jsonl"
        unlocked = path.with_suffix(".new")
        file = unlocked.open("ab", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(path)  # by this name others look at it, and find it locked
        _sync_folder(self._folder)
        return Page(path, file)

    def _set_aside(self) -> None:
        with self._lock:
            self._drop_removed()
            if self._current is not None:
                self._current.lines = _whole_lines(self._current.path)
                self._aside.append(self._current)
                self._current = None

    def _drop_removed(self) -> None:
        self.pending -= sum(len(page.lines) for page in self._aside if page.removed)
        self._aside = [page for page in self._aside if not page.removed]

    def _is_ours(self, path: Path) -> bool:
        with self._lock:
            return any(page.path == path for page in (*self._aside, *filter(None, [self._current])))


def _claimed(path: Path) -> Iterator[Page]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # another process was quicker
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its writer lives, or another process is at it
        if path.exists():
            logger.warning("Replaying what a dead process had spooled.")
            yield Page(path, file, _whole_lines(path))


def _append(file: IO[bytes], data: bytes) -> None:
    """Append all of ``data`` and wait for the disk, or nothing: half a line would spoil the one that follows it."""
    size = os.fstat(file.fileno()).st_size
    try:
        while data:
            data = data[os.write(file.fileno(), data) :]
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a new file's name as durable as its content will be."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _whole_lines(path: Path) -> list[str]:
    """Read all lines but a torn last one: its append never returned, so nobody was promised anything."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [line.decode(errors="replace") for line in lines if line]
