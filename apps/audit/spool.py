"""A local file for final records that the database would not take: appended, fsynced, replayed when it is back.

Each process writes its own file and holds a lock on it, so that another process picks up the file of a dead one and
never that of a living one. A replay that is repeated does no harm: what it inserts is inserted once.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO
from uuid import uuid4

logger = logging.getLogger(__name__)


class Spool:
    """Lines of text, safe on disk when `append` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self.pending = 0

    def append(self, lines: Sequence[str]) -> None:
        """Write lines (without newlines in them) and wait for the disk. Raises `OSError` if it does not take them."""
        with self._lock:
            file = self._file or self._open()
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            self.pending += len(lines)

    def reject(self, line: str) -> None:
        """Keep a line that the database will never take, apart, for a person to look at."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "rejected.txt").open("ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def replay(self, write: Callable[[Sequence[str]], None]) -> int:
        """Hand the lines of our own file and of dead processes' files to ``write``; return how many were written.

        A file is removed after ``write`` returned for all of it; what ``write`` raises goes on to the caller.
        """
        with self._lock:
            count = self._replay_own(write)
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []:
            count += self._replay_dead(path, write)
        return count

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{os.getpid()}-{uuid4().hex}.jsonl"
        self._file = path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file

    def _replay_own(self, write: Callable[[Sequence[str]], None]) -> int:
        if self._file is None:
            return 0
        path = Path(self._file.name)
        lines = _whole_lines(path)
        write(lines)
        path.unlink()
        self._file.close()
        self._file, self.pending = None, 0
        return len(lines)

    def _replay_dead(self, path: Path, write: Callable[[Sequence[str]], None]) -> int:
        if self._file is not None and path == Path(self._file.name):
            return 0
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lines = _whole_lines(path)
                write(lines)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            return 0  # its writer lives, or another process was quicker
        logger.warning("Replayed %d final records that a dead process had spooled.", len(lines))
        return len(lines)


def _whole_lines(path: Path) -> list[str]:
    """Read all lines but a torn last one: its append never returned, so nobody was promised anything."""
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1] if line]
