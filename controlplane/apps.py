"""The project itself as a Django app: its commands and system checks."""

from django.apps import AppConfig


class ControlPlaneConfig(AppConfig):
    """Django's entry for the project."""

    name = "controlplane"
    verbose_name = "LLM Control Plane"

    def ready(self) -> None:
        """Register the project's checks, once every model is loaded."""
        from controlplane import checks  # noqa: F401, PLC0415  # importing registers them
