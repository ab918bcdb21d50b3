"""The project: settings, addresses, servers and commands."""

from controlplane.celery import app as celery_app

__all__ = ["celery_app"]
