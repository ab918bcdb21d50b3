"""The gateway's work that is done apart from requests."""

from celery import shared_task

from apps.gateway import usage_rolls
from apps.gateway.sweeper import sweep as sweep_now


@shared_task(name="apps.gateway.tasks.sweep")  # type: ignore[untyped-decorator,unused-ignore]
def sweep() -> int:
    """Resolve requests whose process died; return how many."""
    return sweep_now()


@shared_task(name="apps.gateway.tasks.roll_usage")  # type: ignore[untyped-decorator,unused-ignore]
def roll_usage() -> int:
    """Bring the sums of usage up to date; return how many records were counted."""
    return usage_rolls.roll_usage()
