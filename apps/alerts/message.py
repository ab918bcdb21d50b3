"""What is sent: one message with the alerts in it, in the form of each channel.

The webhook's form is documented in docs/alerts.md and has a version, which changes when a field goes or means another
thing; fields may be added. No form holds more than the alerts say: no secret, no prompt's text, nothing matched.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from apps.alerts.models import Delivery, Destination
from apps.audit.models import Alert
from apps.audit.uuid7 import uuid7
from apps.orgs.models import Organization

VERSION = 1
TEST = "test"
"""The kind of what a person sends to try a destination."""
PRODUCT = "LLM Control Plane"


@dataclass(frozen=True, slots=True)
class Told:
    """One alert as a message says it. ``id`` is the same in every message that says it."""

    id: UUID
    kind: str
    state: str
    timestamp: datetime
    title: str
    text: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """What goes to a destination at once. ``id`` is the same however often it is tried."""

    id: UUID
    organization: Organization | None
    alerts: tuple[Told, ...]


def message_of(delivery: Delivery, destination: Destination) -> Message:
    """Return the message that a delivery is, oldest alert first."""
    return Message(
        delivery.pk, destination.organization, tuple(map(told_of, delivery.alerts.order_by("timestamp", "id")))
    )


def told_of(alert: Alert) -> Told:
    """Return an alert as a message says it."""
    return Told(alert.pk, alert.kind, alert.state, alert.timestamp, alert.title, alert.text, alert.details)


def trial(destination: Destination, now: datetime) -> Message:
    """Return what tries a destination."""
    text = f"This is how alerts arrive at '{destination.name}'. Nothing has happened, and nothing is to be done."
    told = Told(uuid7(), TEST, Alert.State.RAISED.value, now, f"A test of {PRODUCT}'s alerts", text, {})
    return Message(uuid7(), destination.organization, (told,))


def as_json(message: Message, now: datetime) -> bytes:
    """Return the body of a webhook."""
    organization = message.organization
    return orjson.dumps(
        {
            "version": VERSION,
            "id": str(message.id),
            "sent_at": _moment(now),
            "organization": {"id": str(organization.pk), "name": organization.name} if organization else None,
            "alerts": [_as_json(told) for told in message.alerts],
        }
    )


def as_slack(message: Message) -> bytes:
    """Return the body for Slack's incoming webhooks, and for whatever takes the same: a text, no more."""
    lines = [f"*{_slack(_heading(message))}*"]
    for told in message.alerts:
        lines.append(f"{_MARKS[told.state]} *{_slack(told.title)}* ({told.timestamp:%Y-%m-%d %H:%M} UTC)")
        lines.append(_slack(told.text))
    return orjson.dumps({"text": "\n".join(lines)})


def as_mail(message: Message) -> tuple[str, str]:
    """Return subject and body of a plain e-mail. A subject is one line, whatever names are in it."""
    first, more = message.alerts[0], len(message.alerts) - 1
    subject = f"[{_whose(message)}] {_resolved(first)}{first.title}" + (f", and {more} more" if more else "")
    parts = [
        f"{_resolved(told)}{told.title}\n{told.timestamp:%Y-%m-%d %H:%M:%S} UTC\n\n{told.text}\n"
        for told in message.alerts
    ]
    footer = (
        f"--\nSent by {PRODUCT} for {_whose(message)}. Message {message.id}.\n"
        "An admin chooses what is sent, and where, under Alert destinations.\n"
    )
    return " ".join(subject.split())[:200], "\n".join([*parts, footer])


def _as_json(told: Told) -> dict[str, Any]:
    return {
        "id": str(told.id),
        "kind": told.kind,
        "state": told.state,
        "timestamp": _moment(told.timestamp),
        "title": told.title,
        "text": told.text,
        "details": told.details,
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _whose(message: Message) -> str:
    return message.organization.name if message.organization else "the platform"


def _heading(message: Message) -> str:
    return f"{PRODUCT}: {_whose(message)}"


def _resolved(told: Told) -> str:
    return "Resolved: " if told.state == Alert.State.RESOLVED else ""


_MARKS = {Alert.State.RAISED.value: ":warning:", Alert.State.RESOLVED.value: ":white_check_mark:"}


def _slack(text: str) -> str:
    """Escape what Slack reads as a mention, a link or an entity: a name must not call a whole channel."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())
