"""Take the pictures of `screens.SCREENS`, of a server of its own with lively data, into ``docs/screens/``."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from screens import SCREENS, Screen
from tests.services import plugin  # starts PostgreSQL and Redis, and sets the environment
from tests.services.mail_server import MailServer
from tests.services.receiver import Receiver
from tests.services.server import ROOT, ServerProcess

FOLDER = ROOT / "docs" / "screens"
MOST_BYTES = 150_000
ZONE = "Europe/Berlin"


def main(wanted: list[str]) -> int:
    chosen = [screen for screen in SCREENS if not wanted or any(part in screen.name for part in wanted)]
    try:
        with tempfile.TemporaryDirectory(prefix="lcp-screens-") as folder:
            return take(chosen, Path(folder))
    finally:
        plugin.pytest_unconfigure()


def take(chosen: list[Screen], folder: Path) -> int:
    import django

    django.setup()
    with Receiver() as hook, MailServer() as mails:
        server = ServerProcess(folder, {"EMAIL_URL": mails.url, "ALERT_SECONDS": "0.5"}).start()
        try:
            from screens import lively

            too_large = shoot(chosen, server.url, lively.build(server.url, server.demo, hook.url))
        finally:
            server.stop()
    for name in too_large:
        print(f"{name} is larger than {MOST_BYTES // 1000} KB.", file=sys.stderr)
    return 1 if too_large else 0


def shoot(chosen: list[Screen], url: str, lively: Any) -> list[str]:
    """Take the pictures; return the names of those that are too large."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import ARGUMENTS, CHROMIUM

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    FOLDER.mkdir(parents=True, exist_ok=True)
    too_large = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        states = {role: log_in(browser, url, *who) for role, who in lively.people.items()}
        for screen in chosen:
            file = FOLDER / f"{screen.name}.png"
            context = browser.new_context(
                viewport={"width": screen.width, "height": screen.height},
                color_scheme="dark" if screen.dark else "light",
                timezone_id=ZONE,
                storage_state=states.get(screen.person),
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.goto(f"{url}/admin/{screen.path.format(**vars(lively))}")
            if screen.act:
                screen.act(page)
            page.evaluate("() => document.fonts.ready")
            page.screenshot(path=file, caret="hide", animations="disabled")
            context.close()
            print(f"{file.relative_to(ROOT)}  {file.stat().st_size // 1000} KB", flush=True)
            too_large += [screen.name] if file.stat().st_size > MOST_BYTES else []
        browser.close()
    return too_large


def log_in(browser: Any, url: str, username: str, password: str) -> Any:
    """Log a person in by the form; return the browser's state."""
    page = browser.new_page()
    page.goto(f"{url}/admin/login/")
    page.fill("[name=username]", username)
    page.fill("[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{url}/admin/")
    state = page.context.storage_state()
    page.close()
    return state


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
