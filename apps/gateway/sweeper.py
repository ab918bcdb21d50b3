"""The sweeper: finishes requests whose process died. Past its deadline an `OpenRequest` becomes an interrupted record.

Nobody knows what the provider did with such a request, so it is charged its worst case where budgets had reserved
for it, and the record says who counted. Two sweepers never do harm: a request is closed once. The database's clock
decides what is overdue.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from apps.audit.journal import LATER
from apps.audit.models import OpenRequest, RequestRecord, Status
from apps.audit.recurring import Recurring
from apps.audit.writer import LOCK_TIMEOUT_MS
from apps.gateway.bookkeeping import Closing, record_of_intent, write_free

logger = logging.getLogger(__name__)

GROUP = 100
SPARE_SECONDS = 3.5
"""Added to what a commit may take: see `settle_seconds`."""


def settle_seconds() -> float:
    """Return how long past its deadline a request, which is cut off just then, may take to record its own end."""
    return settings.JOURNAL_WAIT_SECONDS + SPARE_SECONDS


def sweep() -> int:
    """Resolve every request past its deadline; return how many there were.

    One that cannot be resolved now is passed over: it is tried again by the next sweep. Raises `django.db.Error` if
    the database does not answer.
    """
    resolved = 0
    last: OpenRequest | None = None
    while overdue := _overdue(after=last):
        resolved += _resolve(overdue)
        last = overdue[-1]
    return resolved


def _overdue(after: OpenRequest | None) -> list[OpenRequest]:
    settled = Now() - timedelta(seconds=settle_seconds())
    rows = OpenRequest.objects.filter(deadline__lt=settled).order_by("deadline", "id")
    if after is not None:
        rows = rows.filter(Q(deadline__gt=after.deadline) | Q(deadline=after.deadline, id__gt=after.id))
    return list(rows[:GROUP])


def _resolve(overdue: Sequence[OpenRequest]) -> int:
    """Close requests together or, where that fails, in halves, so that one that cannot be closed holds up no other."""
    try:
        recorded = dict(
            RequestRecord.objects.filter(id__in=[row.id for row in overdue]).values_list("id", "cost_nano_usd")
        )
        members = [_closing(row, recorded) for row in overdue]
        with transaction.atomic():
            _wait_briefly_for_locks()
            results = write_free(connection, members)
    except Exception:
        if connection.connection is None or not connection.is_usable():
            raise
        if len(overdue) > 1:
            middle = len(overdue) // 2
            return _resolve(overdue[:middle]) + _resolve(overdue[middle:])
        logger.exception("Request %s could not be resolved.", overdue[0].id)
        return 0
    return sum(result is not None and result is not LATER for result in results)


def _wait_briefly_for_locks() -> None:
    """While this transaction waits for one organization's row it may hold another's."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")


def _closing(row: OpenRequest, recorded: dict[UUID, int]) -> Closing:
    """Say how a request ended. One that was answered with a refusal, and whose intent was committed late, has a
    record already: it pays what that says, and nobody hears that it was interrupted.
    """
    record = {
        **record_of_intent(row.intent, row.id),
        "status": (Status.ERROR if row.id in recorded else Status.INTERRUPTED).value,
        "http_status": 0,
        "error_code": "INTERRUPTED",
        "error_message": "The process that served this request ended before its outcome was recorded.",
        "cost_nano_usd": recorded.get(row.id, row.worst_case_nano_usd),
        "usage_source": "worst_case",
    }
    return Closing(record, None)


class Sweeper(Recurring):
    """A thread that sweeps every so many seconds, for servers that run without a Celery beat."""

    def __init__(self, seconds: float) -> None:
        super().__init__("sweeper", seconds, _sweep_and_say)


def _sweep_and_say() -> None:
    resolved = sweep()
    if resolved:
        logger.warning("Resolved %d interrupted requests.", resolved)
