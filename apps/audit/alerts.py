"""Alerts are raised here, by whoever notices something, in the transaction of what they tell.

They name only what is the organization's own: no secret, no prompt's text, nothing that a guardrail matched.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from apps.audit.models import Alert
from apps.audit.uuid7 import uuid7

SUMMED_FOR = timedelta(minutes=1)
"""How long the first alert of an hour waits for what is of the same burst."""
MOST_TITLE = 300


def raise_alerts(alerts: Iterable[Alert]) -> None:
    """Store alerts, but for those whose topic has one that is not resolved."""
    Alert.objects.bulk_create(alerts, ignore_conflicts=True)


def resolve(alert: Alert, title: str, text: str, now: datetime) -> None:
    """End an alert, and tell those who heard of it. Call it in a transaction that holds the row."""
    alert.resolved_at = now
    alert.save(update_fields=["resolved_at"])
    over = Alert(
        timestamp=now,
        organization_id=alert.organization_id,
        kind=alert.kind,
        state=Alert.State.RESOLVED,
        topic=f"{alert.topic}:resolved:{alert.pk}",
        title=title[:MOST_TITLE],
        text=text,
        details={**alert.details, "raised_at": alert.timestamp.isoformat(), "raised_id": str(alert.pk)},
        due_at=now,
    )
    raise_alerts([over])


def count_interrupted(organization_id: UUID, number: int, now: datetime) -> None:
    """Add to the organization's interrupted requests of this hour; call it in the transaction that records them.

    The first of an hour are told a minute later, together; those that come after that when the hour is over.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    topic = f"interrupted:{organization_id}:{hour.isoformat()}"
    places = [(topic, now + SUMMED_FOR), (f"{topic}:rest", hour + timedelta(hours=1))]
    # The last place is free for sure: a clock that went back must not cost a sum.
    for place, due_at in [*places, (f"{topic}:{uuid7()}", now)]:
        raise_alerts([_interrupted(organization_id, place, now, hour, due_at)])
        row = Alert.objects.select_for_update(no_key=True).filter(topic=place, told_at=None).first()
        if row is not None:
            total = row.details["requests"] + number
            row.details = {**row.details, "requests": total}
            row.title, row.text = _interrupted_words(total, hour)
            row.save(update_fields=["details", "title", "text"])
            return


def _interrupted(organization_id: UUID, topic: str, now: datetime, hour: datetime, due_at: datetime) -> Alert:
    return Alert(
        timestamp=now,
        organization_id=organization_id,
        kind=Alert.Kind.INTERRUPTED,
        topic=topic,
        details={"requests": 0, "hour": hour.isoformat()},
        due_at=due_at,
    )


def _interrupted_words(number: int, hour: datetime) -> tuple[str, str]:
    requests = "1 request was" if number == 1 else f"{number:,} requests were"
    title = f"{requests} interrupted"
    text = (
        f"Found in the hour from {hour:%Y-%m-%d %H:%M} UTC: the process that served them ended before their outcome "
        "was recorded. Each is recorded as interrupted and charged its worst case where a cost cap applies."
    )
    return title, text
