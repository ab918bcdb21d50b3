"""What the tests of alerts share: destinations, alerts, and time that passes."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from apps.alerts.models import Delivery, Destination
from apps.alerts.outbox import deliver, hand_out
from apps.audit.alerts import raise_alerts
from apps.audit.models import Alert
from apps.orgs.models import Organization


def an_organization() -> Organization:
    return Organization.objects.create(name=f"org {uuid4()}")


@transaction.atomic
def destination(
    organization: Organization | None, channel: str = "webhook", url: str = "", **fields: Any
) -> Destination:
    """Make a destination that wants everything."""
    made = Destination(
        **{
            "organization": organization,
            "name": f"to {uuid4()}",
            "channel": channel,
            "kinds": list(Alert.Kind.values),
            "url": url if channel == "webhook" else "",
            **fields,
        }
    )
    if channel == "webhook":
        made.new_signing_secret()
    elif channel == "slack":
        made.set_slack_url(url)
    made.full_clean()
    made.save()
    return made


def an_alert(organization: Organization | None, kind: str = "key_expiring", **fields: Any) -> Alert:
    """Raise an alert that is due."""
    now = timezone.now() - timedelta(seconds=1)
    alert = Alert(
        **{
            "timestamp": now,
            "organization_id": organization.pk if organization else None,
            "kind": kind,
            "topic": f"test:{uuid4()}",
            "title": "Something is up",
            "text": "This is what it is.",
            "due_at": now,
            **fields,
        }
    )
    raise_alerts([alert])
    return alert


def of(destination: Destination) -> list[Delivery]:
    return list(Delivery.objects.filter(destination=destination).order_by("id"))


def let_time_pass(destination: Destination) -> None:
    """Make whatever waits for this destination due now."""
    Delivery.objects.filter(destination=destination).update(next_at=timezone.now() - timedelta(seconds=1))


def tell_all() -> None:
    """Hand out and deliver everything that is due."""
    while hand_out():
        pass
    while deliver():
        pass
