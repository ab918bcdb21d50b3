"""The alert that the journal spools: the one that cannot wait for the database, since it is about its absence.

So it is sent from memory, by a thread that never asks the database. What it needs for that, and what is to be stored of
it afterwards, is the business of `JournalWatch.catch_up`, which another thread calls while the database answers. A note
beside the spool makes the alert one for all processes of a server, and gives it the id under which it is stored.
"""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.alerts.message import Message, told_of
from apps.alerts.models import Destination
from apps.alerts.sending import send
from apps.audit.alerts import raise_alerts, resolve
from apps.audit.clock import database_now
from apps.audit.journal import Journal
from apps.audit.models import Alert
from apps.audit.recurring import Recurring
from apps.audit.uuid7 import uuid7

logger = logging.getLogger(__name__)

AGAIN_AFTER = 30.0
"""How long an attempt that did not arrive is waited after, in seconds."""
NOTE = "told.json"


class JournalWatch(Recurring):
    """Watches one process's journal. Two looks in a row must find it spooling: a moment's is not worth a word."""

    def __init__(self, seconds: float, journal: Journal) -> None:
        super().__init__("journal watch", seconds, self.work)
        self._journal = journal
        self._standby: Sequence[Destination] = ()
        self._seen = False
        self._note: Note | None = None
        self._send_next = 0.0

    def work(self) -> None:
        """Tell of the journal if it spools."""
        spooled = self._journal.spooled()
        if spooled and self._seen:
            self._tell(spooled)
        if not spooled:
            self._note = None
        self._seen = spooled > 0

    def catch_up(self) -> None:
        """Read who is to hear of it, and store what was told once nothing is spooled any more.

        Raises `django.db.Error` if the database does not answer.
        """
        self._standby = _destinations()
        if self._journal.spooled() == 0 and (note := Note.read()) is not None and not any(_folder().glob("*.jsonl")):
            _store_with_its_end(note)
            Note.drop()

    def _tell(self, spooled: int) -> None:
        """Send it, unless another process of this server has, or this one has and it has arrived."""
        if self._note is None:
            self._note, self._send_next = self._claimed(Note(uuid7(), timezone.now(), spooled))
        if not self._note.arrived and time.monotonic() >= self._send_next:
            self._send_next = time.monotonic() + AGAIN_AFTER
            self._note = Note.read() or self._note
            if not self._note.arrived:
                self._send(self._note)

    @staticmethod
    def _claimed(own: "Note") -> "tuple[Note, float]":
        """Return the note that stands, and when it is this process's turn to send it.

        That of another process is sent by this one later, if nothing has arrived by then: the other may be dead, or
        have known nobody to tell.
        """
        if own.claim():
            return own, 0.0
        return Note.read() or own, time.monotonic() + AGAIN_AFTER

    def _send(self, note: "Note") -> None:
        message = Message(uuid7(), None, (told_of(note.alert()),))
        outcomes = send([(destination, message) for destination in self._standby])
        note.arrived = any(outcome.arrived for outcome in outcomes)
        note.write()


@dataclass
class Note:
    """What was told, as what, and whether it has arrived anywhere."""

    id: UUID
    timestamp: datetime
    records: int
    arrived: bool = False

    @classmethod
    def read(cls) -> Self | None:
        """Return the note that there is."""
        try:
            said = json.loads((_folder() / NOTE).read_text())
            return cls(UUID(said["id"]), datetime.fromisoformat(said["timestamp"]), said["records"], said["arrived"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("The note beside the spool cannot be read.")
            return None

    def claim(self) -> bool:
        """Leave it; return whether there was none. Where it cannot be written, telling twice is better than not."""
        try:
            with (_folder() / NOTE).open("x") as file:
                file.write(self._text())
        except FileExistsError:
            return False
        except OSError:
            logger.warning("The note beside the spool cannot be written.")
        return True

    def write(self) -> None:
        """Write it anew."""
        with contextlib.suppress(OSError):
            (_folder() / NOTE).write_text(self._text())

    @staticmethod
    def drop() -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            (_folder() / NOTE).unlink(missing_ok=True)

    def alert(self) -> Alert:
        """Return the alert that it is of."""
        host = socket.gethostname()
        return Alert(
            id=self.id,
            timestamp=self.timestamp,
            kind=Alert.Kind.JOURNAL,
            topic=f"journal:{host}",
            title=f"The journal spools on {host}",
            text=(
                "The database does not take final records: they wait on the server's disk and are written once it is "
                "back. Until then new requests are refused. You will hear when it is over."
            ),
            details={"host": host, "records": self.records},
            due_at=self.timestamp,
        )

    def _text(self) -> str:
        said = {"id": str(self.id), "timestamp": self.timestamp.isoformat()}
        return json.dumps({**said, "records": self.records, "arrived": self.arrived})


def _folder() -> Path:
    return Path(settings.SPOOL_DIR)


def _destinations() -> Sequence[Destination]:
    rows = Destination.objects.filter(organization=None, is_active=True).select_related("data_key", "organization")
    return [row for row in rows if Alert.Kind.JOURNAL in row.kinds]


def _store_with_its_end(note: Note) -> None:
    """Store what was told from memory, or is to be told now, and that it is over."""
    with transaction.atomic():
        now = database_now()
        alert = note.alert()
        alert.told_at = now if note.arrived else None
        raise_alerts([alert])
        open_ones = Alert.objects.select_for_update(no_key=True).filter(topic=alert.topic, resolved_at=None)
        if (held := open_ones.first()) is not None:
            text = f"All that was spooled on {socket.gethostname()} is in the database. Nothing is lost."
            resolve(held, "The journal writes to the database again", text, now)
