"""From alerts to messages to their arrival. The rows are the truth: whoever dies in between, the next one goes on.

    Alert, due and not told --hand_out--> Delivery to each destination that wants it --deliver--> sent | failed

Any number of processes may work at it at once. A message may arrive twice (its sender died before it could say that it
had arrived) and never less than once, unless every attempt fails: then it stands there as failed, to be tried again.
A destination gets the first message at once and no more than one a minute after that, with all that came meanwhile.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from apps.alerts.message import message_of
from apps.alerts.models import Delivery, Destination
from apps.alerts.sending import Outcome, send
from apps.audit.clock import database_now
from apps.audit.models import Alert

AT_ONCE = 20
"""Messages that one process sends at a time."""
ALERTS_AT_ONCE = 200
MOST_IN_A_MESSAGE = 50
QUIET = timedelta(minutes=1)
"""How long a destination gets nothing more after a message."""
LEASE = timedelta(minutes=2)
"""How long a message is one process's own. Longer than any attempt takes; after it another one tries."""
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=15), timedelta(hours=1)
SWITCHED_OFF, DELETED = "The destination was switched off.", "The destination was deleted."

_SPREAD = random.SystemRandom()


def hand_out() -> int:
    """Make messages of the alerts that are due, for each destination that wants them; return how many alerts."""
    with transaction.atomic():
        now = database_now()
        due = Alert.objects.select_for_update(skip_locked=True, no_key=True).filter(told_at=None, due_at__lte=now)
        alerts = list(due.order_by("due_at", "id")[:ALERTS_AT_ONCE])
        for destination in _destinations(alerts):
            wanted = [alert for alert in alerts if _wants(destination, alert)]
            _put(destination, wanted, now)
        Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(told_at=now)
    return len(alerts)


def deliver() -> int:
    """Try the messages that are due, all at once; return how many."""
    claimed = _claim()
    outcomes = send([(one.destination, message_of(one, one.destination)) for one in claimed if one.destination])
    for one, outcome in zip(claimed, outcomes, strict=True):
        _settle(one, outcome)
    return len(claimed)


def _destinations(alerts: Sequence[Alert]) -> list[Destination]:
    """Return the destinations of the alerts' organizations, locked, so that each is given messages by one at a time."""
    owners = {alert.organization_id for alert in alerts}
    theirs = Q(organization_id__in=owners - {None})
    if None in owners:
        theirs |= Q(organization_id=None)
    rows = Destination.objects.select_for_update(no_key=True).filter(theirs, is_active=True)
    return list(rows.order_by("pk")) if alerts else []


def _wants(destination: Destination, alert: Alert) -> bool:
    return destination.organization_id == alert.organization_id and alert.kind in destination.kinds


def _put(destination: Destination, alerts: Sequence[Alert], now: datetime) -> None:
    """Put alerts into the message that is not tried yet as far as there is room, and into new ones."""
    rest = list(alerts)
    message = _open_message(destination) if rest else None
    room = MOST_IN_A_MESSAGE - message.alerts.count() if message is not None else 0
    while rest:
        if message is None or room <= 0:
            message, room = _new_message(destination, now), MOST_IN_A_MESSAGE
        message.alerts.add(*rest[:room])
        rest, room = rest[room:], 0


def _open_message(destination: Destination) -> Delivery | None:
    untried = Delivery.objects.filter(destination=destination, state=Delivery.State.WAITING, attempts=0)
    return untried.select_for_update(skip_locked=True, no_key=True).order_by("-id").first()


def _new_message(destination: Destination, now: datetime) -> Delivery:
    last = Delivery.objects.filter(destination=destination).order_by("-id").first()
    due = max(now, last.due_at + QUIET) if last is not None else now
    return Delivery.objects.create(
        organization_id=destination.organization_id,
        destination=destination,
        destination_name=destination.name,
        due_at=due,
        next_at=due,
    )


def _claim() -> list[Delivery]:
    """Take messages that are due for this process: what it does not settle within `LEASE` another one tries."""
    with transaction.atomic():
        now = database_now()
        due = Delivery.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
        waiting = due.filter(state=Delivery.State.WAITING, next_at__lte=now).order_by("next_at")
        rows = list(waiting.select_related("destination__organization", "destination__data_key")[:AT_ONCE])
        return [row for row in rows if _taken(row, now)]


def _taken(row: Delivery, now: datetime) -> bool:
    if row.destination is None or not row.destination.is_active:
        row.state, row.outcome = Delivery.State.FAILED, SWITCHED_OFF if row.destination else DELETED
    elif row.attempts >= row.most_attempts:
        row.state = Delivery.State.FAILED
    else:
        row.attempts += 1
        row.next_at = now + LEASE
    row.save(update_fields=["state", "outcome", "attempts", "next_at"])
    return row.state == Delivery.State.WAITING


def _settle(claimed: Delivery, outcome: Outcome) -> None:
    """Write down what became of an attempt, unless another process has taken the message over and this one failed."""
    with transaction.atomic():
        row = Delivery.objects.select_for_update(no_key=True).filter(pk=claimed.pk).first()
        if row is None or row.state == Delivery.State.SENT:
            return
        if outcome.arrived:
            row.state, row.sent_at = Delivery.State.SENT, database_now()
        elif row.attempts != claimed.attempts:
            return
        elif row.attempts >= row.most_attempts:
            row.state = Delivery.State.FAILED
        else:
            row.next_at = database_now() + wait_after(row.attempts, outcome.retry_after)
        row.outcome = outcome.said[:200]
        row.save(update_fields=["state", "sent_at", "next_at", "outcome"])


def wait_after(attempts: int, retry_after: float | None = None) -> timedelta:
    """Return how long a message waits that failed so often: twice as long each time, spread over a half of that."""
    longest: timedelta = min(FIRST_WAIT * 2 ** min(attempts - 1, 20), LONGEST_WAIT)
    return max(longest * _SPREAD.uniform(0.5, 1.0), timedelta(seconds=retry_after or 0))
