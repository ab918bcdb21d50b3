"""What people do with destinations and messages, from the admin and the API alike: each leaves its record."""

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.alerts.message import trial
from apps.alerts.models import Delivery, Destination
from apps.alerts.sending import Outcome, send
from apps.audit.changes import Actor, record_change, state_of
from apps.audit.models import ChangeRecord
from apps.orgs.models import User
from apps.orgs.roles import Action
from apps.orgs.scoping import visible

MOST_TRIALS, WINDOW = 10, timedelta(minutes=10)
"""How many tests an organization may send in how long: they are no way to write to strangers."""
ACTION = "test"
UNREADABLE = "The stored secret cannot be read any more. Delete the destination and make it anew."


class TooManyTrials(Exception):
    """The organization has sent enough tests for now."""


def try_out(destination: Destination, actor: Actor) -> Outcome:
    """Send a test to a destination, with its record; return what became of it. Raises `TooManyTrials`."""
    with transaction.atomic():
        # Held, so that of many at once none slips through between the count and the record.
        Destination.objects.select_for_update(no_key=True).filter(pk=destination.pk).first()
        if _trials(destination.organization_id) >= MOST_TRIALS:
            raise TooManyTrials
        record_change(actor, ACTION, destination, organization_id=destination.organization_id)
    (outcome,) = send([(destination, trial(destination, timezone.now()))])
    return outcome


def _trials(organization_id: UUID | None) -> int:
    lately = ChangeRecord.objects.filter(organization_id=organization_id, timestamp__gte=timezone.now() - WINDOW)
    return lately.filter(action=ACTION, object_type=Destination._meta.label_lower).count()


def renew_secret(destination: Destination, actor: Actor) -> str:
    """Give a webhook a new signing secret, with the record; return it, this once.

    Raises `encryption.KeysUnavailable`, and `encryption.DecryptionError` if the old one cannot be read any more.
    """
    with transaction.atomic():
        row = Destination.objects.select_for_update(of=("self",), no_key=True).get(pk=destination.pk)
        before = state_of(row)
        secret = row.new_signing_secret()
        row.save(update_fields=["encrypted_secret", "encrypted_former", "former_until", "data_key", "last_four"])
        after = state_of(row) | {"encrypted_secret": "(set anew)"}
        record_change(actor, "rotate", row, organization_id=row.organization_id, before=before, after=after)
    return secret


def may_retry(user: User, delivery: Delivery) -> bool:
    """Whether a person may have a message tried again: whoever may change its destination."""
    theirs = visible(Destination.objects.all(), user, Action.CHANGE)
    return delivery.destination_id is not None and theirs.filter(pk=delivery.destination_id).exists()


def retry(delivery: Delivery, actor: Actor) -> bool:
    """Have a message that failed tried again, with the record; return whether it had failed."""
    with transaction.atomic():
        row = Delivery.objects.select_for_update(no_key=True).filter(pk=delivery.pk).first()
        if row is None or row.state != Delivery.State.FAILED:
            return False
        before = state_of(row)
        row.try_again()
        record_change(actor, "retry", row, organization_id=row.organization_id, before=before, after=state_of(row))
    return True
