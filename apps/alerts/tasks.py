"""Telling as a task of Celery's, for where no server's thread does it."""

from celery import shared_task

from apps.alerts.teller import tell as tell_now


@shared_task(name="apps.alerts.tasks.tell")  # type: ignore[untyped-decorator,unused-ignore]
def tell() -> int:
    """Look for what there is to tell and send what is due; return how many messages were tried."""
    return tell_now()
