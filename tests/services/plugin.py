"""A pytest plugin: gives the run its database, its Redis and its settings before Django reads them.

Loaded with ``-p``, so that it is imported before pytest-django configures anything. The services start once, in the
process that pytest was started in; xdist's workers inherit the environment.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LIMIT_SECONDS = 120
_is_worker = "PYTEST_XDIST_WORKER" in os.environ
_stops = []
_ADDRESSES = ("WORKER_DATABASE_URL", "MIGRATION_DATABASE_URL")


def _prepare() -> None:
    from tests.services.database_roles import make_roles
    from tests.services.postgres import EmbeddedPostgres
    from tests.services.redis import EmbeddedRedis

    folder = Path(tempfile.mkdtemp(prefix="lcp-tests-"))
    folder.chmod(0o755)
    _stops.append(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    os.environ["ENVIRONMENT"] = "development"
    os.environ["DATA_DIR"] = str(folder / "data")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "METRICS_TOKEN", "FRONT_END_URL", "KMS_KEY_ID", *_ADDRESSES):
        os.environ.pop(name, None)
    if not os.environ.get("DATABASE_URL"):
        postgres = EmbeddedPostgres(folder / "postgres")
        _stops.insert(0, postgres.stop)
        os.environ["DATABASE_URL"] = postgres.start()
    if os.environ["DATABASE_URL"].startswith("postgres"):
        make_roles(os.environ["DATABASE_URL"])
    if not os.environ.get("REDIS_URL"):
        redis = EmbeddedRedis()
        _stops.insert(0, redis.stop)
        os.environ["REDIS_URL"] = redis.start()


def _share_tls_context() -> None:
    """Have httpx make its TLS context once: it takes 25 ms, and each call of ``httpx.get`` would make one."""
    from httpx._transports import default

    default.create_ssl_context = cache(default.create_ssl_context)


def _keep_bytecode() -> None:
    """Let the first process compile for all: each server that a test starts would compile the project anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


_keep_bytecode()
if not _is_worker:
    _prepare()
_share_tls_context()


def pytest_unconfigure() -> None:
    """End the services, whichever way the run ended."""
    while _stops:
        _stops.pop(0)()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute the tests by file."""
    from tests.services.scheduling import ByFile

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fail a test that hangs, instead of the run."""
    marker = item.get_closest_marker("limit_seconds")
    seconds = marker.args[0] if marker else LIMIT_SECONDS

    def give_up(signum: int, frame: object) -> None:
        pytest.fail(f"The test did not end within {seconds} s.", pytrace=True)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
