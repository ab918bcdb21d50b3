"""The Celery application: ``celery -A controlplane worker`` and ``celery -A controlplane beat``.

A server imports it where it sends a task and not before: Celery is a sixth of what a process has to import.
"""

import os
from typing import Any

from celery import Celery
from celery.signals import task_prerun

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("controlplane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@task_prerun.connect  # type: ignore[untyped-decorator,unused-ignore]
def _work_across_organizations(**_: Any) -> None:
    """Have the thread that runs a task speak to the database as the worker."""
    from apps.audit import fence  # noqa: PLC0415 (needs the settings)

    fence.work_across_organizations()
