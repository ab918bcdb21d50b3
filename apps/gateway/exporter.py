"""The exporter: writes the exports that wait. Celery's worker does it, and each server for want of one.

A server's process is for requests. So its thread leaves an export to a worker where there is a broker, unless none has
come for a while, and rests as long as it works.
"""

import logging
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, close_old_connections, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit import wires
from apps.audit.exports.work import Producers, tidy, work, write_records
from apps.audit.models import Export
from apps.policies.evidence import write_evidence

logger = logging.getLogger(__name__)

PRODUCERS: Producers = {Export.Kind.RECORDS.value: write_records, Export.Kind.EVIDENCE.value: write_evidence}
PATIENCE = timedelta(seconds=20)
"""How long a server leaves an export to Celery's worker."""
REST = 1.0
TIDY_SECONDS = 300.0


def export_now() -> int:
    """Write all exports that wait; return how many there were. Raises `django.db.Error` if the database is away."""
    return work(PRODUCERS)


class Exporter:
    """A thread that looks for exports every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._patience = timedelta() if settings.CELERY_BROKER_URL.startswith("memory:") else PATIENCE
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: BaseDatabaseWrapper | None = None

    def start(self) -> None:
        """Start the thread, unless exporting is turned off (0 seconds)."""
        if self._seconds > 0 and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="exporter", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread, which gives back what it is at; one that still waits for the database is cut off from it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                wires.cut(self._connection)

    def _work(self) -> None:
        self._connection = connections[DEFAULT_DB_ALIAS]
        tidied_at = time.monotonic() - TIDY_SECONDS
        while not self._stop.wait(self._seconds):
            close_old_connections()
            try:
                if time.monotonic() - tidied_at >= TIDY_SECONDS:
                    tidied_at = time.monotonic()
                    tidy()
                work(PRODUCERS, waiting_for=self._patience, rest=REST, must_end=self._stop.is_set)
            except Error:
                logger.warning("Could not look for exports: the database did not answer.")
                connection.close()
            except Exception:
                logger.exception("Looking for exports failed; the next time tries again.")
        connection.close()
