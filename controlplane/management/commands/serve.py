"""``manage.py serve``: check, prepare, and serve the control plane."""

import shlex
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from apps.policies.guardrails.scan import warm
from controlplane import demo, preflight, server


class Command(BaseCommand):
    """Serve on HOST:PORT with WORKERS processes. In development the first run creates the schema and demo data."""

    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what else comes from the environment."""
        parser.add_argument("--host", default=settings.HOST)
        parser.add_argument("--port", type=int, default=settings.PORT)
        parser.add_argument("--workers", type=int, default=settings.WORKERS)

    def handle(self, *args: Any, host: str, port: int, workers: int, **options: Any) -> None:
        """Refuse with one line, or serve until the end."""
        preflight.check_settings()
        preflight.check_database()
        try:
            listener = server.bind(host, port)
        except OSError as error:
            raise CommandError(
                f"Port {port} on {host} cannot be used: {error.strerror}. Set PORT to another."
            ) from error
        except OverflowError as error:
            raise CommandError(f"PORT {port} is none: it must be from 0 to 65535.") from error
        processes = self._processes(workers)
        if processes == 1:  # this one: its detectors compile beside what follows, which takes as long
            threading.Thread(target=warm, name="detectors", daemon=True).start()
        preflight.migrate_or_refuse()
        self.check(fail_level=40)
        if warning := preflight.check_fence():
            self.stderr.write(warning)
        base = f"http://{host}:{port}"
        if not settings.PRODUCTION:
            try:
                found = demo.ensure_demo(Path(settings.DEMO_FILE), base)
            except OSError as error:
                raise CommandError(f"DEMO_FILE {settings.DEMO_FILE} cannot be used: {error.strerror}.") from error
            self._introduce(found, base)
        connection.close()
        server.run(listener, processes)

    def _processes(self, wanted: int) -> int:
        shared = settings.REDIS_URL and connection.vendor == "postgresql"
        if wanted > 1 and not shared:
            self.stderr.write("Serving with one process: more need PostgreSQL (DATABASE_URL) and Redis (REDIS_URL).")
            return 1
        return wanted

    def _introduce(self, found: dict[str, Any] | None, base: str) -> None:
        if found is None:
            self.stdout.write(f"LLM Control Plane on {base} (admin: {base}/admin/)")
            return
        people = "\n".join(f"    {u['role']:<12} {u['username']:<12} {u['password']}" for u in found["users"])
        self.stdout.write(
            f"LLM Control Plane on {base}\n\n  Admin: {found['admin_url']}\n{people}\n\n"
            f"  API key of the application '{demo.APPLICATION}': {found['api_key']}\n\n  Try it:\n\n{_curl(found)}\n"
        )
        self.stdout._out.flush()  # type: ignore[attr-defined]  # noqa: SLF001 (a pipe would keep the text until the end)


def _curl(found: dict[str, Any]) -> str:
    body = '{"model": "sim-echo", "messages": [{"role": "user", "content": "Hello, control plane!"}]}'
    return (
        f"curl -s {found['base_url']}/chat/completions -H {shlex.quote('Authorization: Bearer ' + found['api_key'])} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
