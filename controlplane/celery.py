"""The Celery application: ``celery -A controlplane worker`` and ``celery -A controlplane beat``.

A server imports it where it sends a task and not before: Celery is a sixth of what a process has to import.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("controlplane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
