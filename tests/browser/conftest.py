"""A real browser in front of a real server, where Chromium is installed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connections
from django.test import override_settings

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

        return serve(request, self.file_path(request.path), insecure=True)


@pytest.fixture
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


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A page of a fresh browser; what its console complains of fails the test."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs a Chromium at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    # Playwright runs an event loop in this thread, next to which Django would refuse to use the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.extend(_complaints(message)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda failed: complaints.extend(_failures(failed)))
        yield page
        browser.close()
        assert complaints == []


def _complaints(message: Any) -> list[str]:
    # A login that is refused is a page with the status 403, which the console tells as well.
    if message.type not in {"error", "warning"} or "/oauth2/idpresponse" in message.location.get("url", ""):
        return []
    return [message.text]


def _failures(failed: Any) -> list[str]:
    # A field that suggests gives up a question when the next letter is typed.
    return [] if "ERR_ABORTED" in str(failed.failure) else [f"{failed.url}: {failed.failure}"]
