"""The sweeper: finishes requests whose process died. Past its deadline an `OpenRequest` becomes an interrupted record.

Nobody knows what the provider did with such a request, so it is charged its worst case where budgets had reserved
for it, and the record says who counted. Two sweepers never do harm: a request is closed once.
"""

import logging
import threading

from django.db import DatabaseError, close_old_connections, connection, transaction
from django.utils import timezone

from apps.audit.models import OpenRequest, Status
from apps.gateway.bookkeeping import Closing, record_of_intent, write_group

logger = logging.getLogger(__name__)

GROUP = 100


def sweep() -> int:
    """Resolve every request past its deadline; return how many there were."""
    resolved = 0
    while True:
        overdue = list(OpenRequest.objects.filter(deadline__lt=timezone.now()).order_by("deadline")[:GROUP])
        if not overdue:
            return resolved
        with transaction.atomic():
            results = write_group(connection, [_closing(row) for row in overdue])
        resolved += sum(result is not None for result in results)


def _closing(row: OpenRequest) -> Closing:
    record = {
        **record_of_intent(row.intent, row.id),
        "status": Status.INTERRUPTED.value,
        "http_status": 0,
        "error_code": "INTERRUPTED",
        "error_message": "The process that served this request ended before its outcome was recorded.",
        "cost_nano_usd": row.worst_case_nano_usd,
        "usage_source": "worst_case",
    }
    return Closing(record, None)


class Sweeper:
    """A thread that sweeps every so many seconds, for servers that run without a Celery beat."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless sweeping is turned off (0 seconds)."""
        if self._seconds > 0 and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sweeper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _work(self) -> None:
        while not self._stop.wait(self._seconds):
            close_old_connections()
            try:
                resolved = sweep()
            except DatabaseError:
                logger.warning("Could not sweep: the database did not answer.")
                continue
            if resolved:
                logger.warning("Resolved %d interrupted requests.", resolved)
        connection.close()
