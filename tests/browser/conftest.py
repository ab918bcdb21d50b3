"""A real browser in front of a real server, where Chromium is installed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connections
from django.test import Client, override_settings

from apps.orgs.models import User
from tests.admin.conftest import PLAIN_STATIC

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Nothing: a test run is no place for an access log."""

    def finish(self) -> None:
        super().finish()
        connections.close_all()


class EveryStaticFile(StaticFilesHandler):
    """Serves static files from where they are, as `runserver` does."""

    def serve(self, request: Any) -> Any:
        from django.contrib.staticfiles.views import serve

        answer = serve(request, self.file_path(request.path), insecure=True)
        answer["Cache-Control"] = "max-age=600"  # a visit loads them once, as in production
        return answer


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """The address of the project, served on a free port of this machine."""
    with override_settings(STORAGES=PLAIN_STATIC, STATIC_ROOT=settings.BASE_DIR / "static"):
        httpd = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler, ipv6=False)
        httpd.set_app(EveryStaticFile(WSGIHandler()))
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """One browser for every test of this folder that follows another; each has a context, and so a profile, of its own.

    No longer than that: Playwright runs an event loop in this thread, next to which Django would refuse to use the
    database, and other tests could run none of their own.
    """
    if not CHROMIUM.exists():
        pytest.skip(f"needs a Chromium at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    with pytest.MonkeyPatch.context() as patch, playwright.sync_playwright() as driver:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Any]:
    """A page of a fresh profile; what its console complains of fails the test."""
    with opened(chromium, request.param) as (page, complaints):
        yield page
        assert complaints == []


@contextmanager
def opened(chromium: Any, width: int, **options: Any) -> Iterator[tuple[Any, list[str]]]:
    """Open a page of a fresh profile; give it with what its console complains of."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.extend(_complaints(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda failed: complaints.extend(_failures(failed)))
    try:
        yield page, complaints
    finally:
        context.close()


def enter(page: Any, server: str, user: User) -> None:
    """Log a person in without the form, which has tests of its own."""
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": server}])


def _complaints(message: Any) -> list[str]:
    # A page that refuses (of a login, of an address that leads nowhere) has a status that the console tells as well.
    if message.type not in {"error", "warning"} or "the server responded with a status of 40" in message.text:
        return []
    return [message.text]


def _failures(failed: Any) -> list[str]:
    # A field that suggests gives up a question when the next letter is typed.
    return [] if "ERR_ABORTED" in str(failed.failure) else [f"{failed.url}: {failed.failure}"]
