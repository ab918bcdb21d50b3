"""The work of telling: look, hand out, deliver. A thread of each server does it, and a Celery task or an event of AWS
Lambda's elsewhere; any number of them may.
"""

import time

from apps.alerts.journal import JournalWatch
from apps.alerts.outbox import deliver, hand_out
from apps.alerts.watch import Watch
from apps.audit.journal import Journal
from apps.audit.recurring import Recurring

SECONDS = 10.0
"""How long messages are tried, group after group, before the next look."""

_WATCH = Watch()


def tell(watch: Watch = _WATCH) -> int:
    """Do it once: look for what there is to tell, and send what is due. Returns how many messages were tried."""
    watch.look()
    while hand_out():
        pass
    tried, until = 0, time.monotonic() + SECONDS
    while (group := deliver()) and time.monotonic() < until:
        tried += group
    return tried + group


class Teller(Recurring):
    """A server's thread that tells, and the one beside it that watches this process's journal."""

    def __init__(self, seconds: float, journal: Journal) -> None:
        super().__init__("teller", seconds, self.work)
        self._watch = Watch()
        self._journal = JournalWatch(seconds, journal)

    def start(self) -> None:
        """Start both."""
        super().start()
        self._journal.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End both. What is being sent just then is sent again by another process."""
        self._journal.stop(0)
        super().stop(timeout)

    def work(self) -> None:
        """Tell once."""
        self._journal.catch_up()
        tell(self._watch)
