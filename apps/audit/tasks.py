"""The audit's work that is done apart from requests."""

from celery import shared_task

from apps.audit import fence, partitions


@shared_task(name="apps.audit.tasks.ensure_partitions")  # type: ignore[untyped-decorator,unused-ignore]
def ensure_partitions() -> list[str]:
    """Create the partitions of the months to come; return their names."""
    with fence.owning():
        return partitions.ensure_partitions()
