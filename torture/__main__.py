"""Run the long tests, one after the other: one line each, and exit 1 if one of them failed."""

import importlib
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torture
from tests.services import plugin  # starts PostgreSQL and Redis, and sets the environment
from tests.services.server import keep_tables

LOG_LINES = 40


def main(wanted: list[str]) -> int:
    try:
        with DjangoDatabase():
            for module in pkgutil.iter_modules(torture.__path__):
                if module.name != "__main__":
                    importlib.import_module(f"torture.{module.name}")
            chosen = [t for t in torture.LONG_TESTS.values() if not wanted or any(part in t.name for part in wanted)]
            if not chosen:
                print(f"There are {', '.join(torture.LONG_TESTS)}.", file=sys.stderr)
            results = [run(test) for test in chosen]
            return 0 if results and all(results) else 1
    finally:
        plugin.pytest_unconfigure()


class DjangoDatabase:
    """Django, set up on an empty database with all tables."""

    def __enter__(self) -> None:
        import django
        from django.test.utils import setup_databases

        django.setup()
        self._created = setup_databases(verbosity=0, interactive=False, aliases={"default"}, serialized_aliases=set())
        keep_tables()

    def __exit__(self, *error: object) -> None:
        from django.db import connections

        connections.close_all()  # the server ends with everything in it


def run(test: torture.LongTest) -> bool:
    """Run one test within its time; print its line."""
    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(test.seconds)
    with tempfile.TemporaryDirectory(prefix="lcp-torture-") as folder:
        try:
            figures = test.run(Path(folder))
        except Exception:  # noqa: BLE001 (one failure must not hide the others)
            signal.alarm(0)
            print(f"FAILED  {test.name}  {time.monotonic() - started:.1f} s", flush=True)
            traceback.print_exc()
            print_logs(Path(folder))
            return False
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    said = "  ".join(f"{name} {value}" for name, value in figures.items())
    print(f"ok      {test.name}  {time.monotonic() - started:.1f} s  {said}", flush=True)
    return True


def give_up(*_: object) -> None:
    raise TimeoutError("The test did not end in its time.")


def print_logs(folder: Path) -> None:
    """Print the end of what each server said."""
    for log in sorted(folder.rglob("*.log")):
        print(f"--- {log.relative_to(folder)}", *log.read_text().splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
