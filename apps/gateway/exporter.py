"""The exporter: writes the exports that wait. Celery's worker does it, and each server for want of one.

A server's process is for requests. So its thread leaves an export to a worker where there is a broker, unless none has
come for a while, and rests as long as it works.
"""

import time
from datetime import timedelta

from django.conf import settings

from apps.audit.exports.work import Producers, tidy, work, write_records
from apps.audit.models import Export
from apps.audit.recurring import Recurring
from apps.policies.evidence import write_evidence

PRODUCERS: Producers = {Export.Kind.RECORDS.value: write_records, Export.Kind.EVIDENCE.value: write_evidence}
PATIENCE = timedelta(seconds=20)
"""How long a server leaves an export to Celery's worker."""
REST = 1.0
TIDY_SECONDS = 300.0


def export_now() -> int:
    """Write all exports that wait; return how many there were. Raises `django.db.Error` if the database is away."""
    return work(PRODUCERS)


class Exporter(Recurring):
    """A thread that looks for exports every so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__("exporter", seconds, self.look)
        self._patience = timedelta() if settings.CELERY_BROKER_URL.startswith("memory:") else PATIENCE
        self._tidied_at = -TIDY_SECONDS

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread, which needs a moment to give back what it is at."""
        super().stop(timeout)

    def look(self) -> None:
        """Write what waits, and remove what nobody may have any more. An end gives back what is being written."""
        if time.monotonic() - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = time.monotonic()
            tidy()
        work(PRODUCERS, waiting_for=self._patience, rest=REST, must_end=self.is_stopping)
