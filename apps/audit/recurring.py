"""Work that a server does every so many seconds, where no Celery beat does it."""

import logging
import threading
from collections.abc import Callable

from django.db import DEFAULT_DB_ALIAS, Error, close_old_connections, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit import fence, wires

logger = logging.getLogger(__name__)


class Recurring:
    """A thread with a connection of its own, as the worker, that works every ``seconds``; never, if that is 0."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: BaseDatabaseWrapper | None = None

    def start(self) -> None:
        """Start the thread, unless the work is turned off."""
        if self._seconds > 0 and self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End the thread; one that still waits for the database after ``timeout`` seconds is cut off from it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                wires.cut(self._connection)

    def _run(self) -> None:
        fence.work_across_organizations()
        self._connection = connections[DEFAULT_DB_ALIAS]
        while not self._stop.wait(self._seconds):
            close_old_connections()
            try:
                self._work()
            except Error:
                logger.warning("The %s could not work: the database did not answer.", self._name)
                connection.close()
            except Exception:
                logger.exception("The %s failed; the next turn tries again.", self._name)
        connection.close()
