"""AWS Lambda's entry. Zappa turns API Gateway's events into WSGI requests; nothing else of Zappa's is let in.

{"version": "2.0", ...}, {"httpMethod": ...}   a request -> the REST framework's door
{"type": "user-migration" | "sweep" | ...}     our own work (`controlplane.lambda_work`), answered with its result
{"detail-type": "Scheduled Event", ...}        keep warm, or the work that zappa_settings.json schedules
anything else                                  refused: Zappa would run the Python or the commands that events carry
"""

import importlib
import logging
import os
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from zappa.handler import LambdaHandler

from controlplane.aws_secrets import read_secrets

NEEDED = (("DATABASE_URL",), ("SECRET_KEY",), ("KEY_PEPPERS",), ("ENCRYPTION_KEYS", "KMS_KEY_ID"))
"""What a function cannot make for itself, as a developer's machine does: its disk does not outlive it. One of each."""
_COMMANDS = ("raw_command", "command", "manage")
_SCHEDULED = {
    "handler.keep_warm_callback": "keep-warm",
    "controlplane.lambda_work.sweep": "sweep",
    "controlplane.lambda_work.tell": "tell",
    "controlplane.lambda_work.ensure_partitions": "ensure-partitions",
}

if os.environ.get("INSTANTIATE_LAMBDA_HANDLER_ON_IMPORT"):
    raise ImproperlyConfigured("Unset INSTANTIATE_LAMBDA_HANDLER_ON_IMPORT: it puts Zappa's own handler before ours.")

# Zappa's access lines hold query strings, and with them authorization codes and the words of searches.
logging.getLogger("zappa.wsgi").setLevel(logging.WARNING)


class ControlPlaneHandler(LambdaHandler):  # type: ignore[misc,unused-ignore]  # Zappa has no types
    """Serves requests and our own events, and refuses the rest."""

    settings: Any = None

    def __init__(self, settings_name: str = "zappa_settings", session: Any = None) -> None:
        """Start cold: secrets first, then Django. Zappa calls this for every event; the first one does the work.

        Raises `ImproperlyConfigured` or `CommandError` for what is missing.
        """
        if self.settings:
            return
        os.environ.update(importlib.import_module(settings_name).ENVIRONMENT_VARIABLES)
        read_secrets()
        missing = [" or ".join(names) for names in NEEDED if not any(map(os.environ.get, names))]
        if missing:
            raise ImproperlyConfigured(f"AWS Lambda needs {', '.join(missing)}, from the environment or its secrets.")
        try:
            super().__init__(settings_name, session)
            _check_settings()
        except BaseException:
            self.settings = None  # a start that failed half-way must fail again, not serve
            raise

    def handler(self, event: Any, context: Any) -> Any:
        """Return the answer to an event. Raises `PermissionError` for one that is not served."""
        _refuse_commands(event)
        if "type" in event:
            return _work(event["type"])
        if event.get("version") == "2.0" or event.get("httpMethod"):
            # Stage variables would become the process's environment.
            answer = super().handler({**event, "stageVariables": None}, context)
            _finish_loose_ends()
            return answer
        return _work(_scheduled(event))

    def _create_lambda_wsgi_environ(self, event: Any, *args: Any) -> dict[str, Any]:
        """Take the client's address from API Gateway, and not from a header that a client can write."""
        environ: dict[str, Any] = super()._create_lambda_wsgi_environ(event, *args)
        context = event.get("requestContext") or {}
        environ["REMOTE_ADDR"] = (context.get("http") or context.get("identity") or {}).get("sourceIp") or ""
        return environ


def lambda_handler(event: Any, context: Any) -> Any:
    """Answer one event of AWS Lambda."""
    return ControlPlaneHandler.lambda_handler(event, context)


def _refuse_commands(event: Any) -> None:
    if not isinstance(event, dict):
        raise PermissionError("An event must be a JSON object.")
    for name in _COMMANDS:
        if name in event:
            raise PermissionError(f"Events with '{name}' are refused: nothing that an event carries is executed.")


def _scheduled(event: dict[str, Any]) -> str:
    """Return the type of a schedule's work: Zappa ends the rule's name with the function's."""
    if event.get("detail-type") != "Scheduled Event":
        raise PermissionError("Only API Gateway's requests, schedules and events with a 'type' are served.")
    rule = str((event.get("resources") or [""])[0])
    kind = _SCHEDULED.get(rule.rpartition("/")[2].rpartition("-")[2])
    if kind is None:
        raise PermissionError("This schedule is not one of zappa_settings.json.")
    return kind


def _work(kind: Any) -> dict[str, Any]:
    from django.db import close_old_connections  # noqa: PLC0415 (needs the settings)

    from apps.audit import fence  # noqa: PLC0415
    from controlplane.lambda_work import WORK  # noqa: PLC0415

    if not isinstance(kind, str) or kind not in WORK:
        raise PermissionError(f"No such type of event; there are: {', '.join(WORK)}.")
    close_old_connections()
    try:
        with fence.working():
            return {"type": kind, "status": "ok", **WORK[kind]()}
    finally:
        close_old_connections()


def _check_settings() -> None:
    from controlplane import preflight  # noqa: PLC0415 (needs the settings)

    preflight.check_settings()


def _finish_loose_ends() -> None:
    """Wait for what requests left to do after their answer: once it is out, AWS freezes the process."""
    from apps.gateway.runtime import BACKGROUND  # noqa: PLC0415 (needs the settings)

    BACKGROUND.finish_loose_ends()
