"""The working parts behind the doors, made once for each process from the settings and tied to one event loop.

Under ASGI they belong to the server's lifespan. Under WSGI, which has no event loop, they live on one that runs in a
background thread: clients that are kept between calls must not meet a new loop on each.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from django.conf import settings

from apps.audit.journal import Journal
from apps.audit.recurring import Recurring
from apps.audit.spool import Spool
from apps.gateway.addresses import allowed_networks
from apps.gateway.admission import Admission
from apps.gateway.bookkeeping import STEPS
from apps.gateway.configuration import Configurations
from apps.gateway.exporter import Exporter
from apps.gateway.pipeline import Pipeline
from apps.gateway.providers.base import Endpoint
from apps.gateway.routing import Environment
from apps.gateway.sweeper import Sweeper
from apps.gateway.transport import Limits, Timeouts, Transport
from apps.gateway.usage_rolls import roll_usage
from apps.orgs import wrapping
from apps.policies.guardrails.scan import warm
from apps.policies.rates.base import RateStore
from apps.policies.rates.census import Census
from apps.policies.rates.fallback import FallbackRateStore, WhenUnavailable
from apps.policies.rates.memory import MemoryRateStore
from apps.policies.rates.redis import RedisRateStore

T = TypeVar("T")


class Runtime:
    """The pipeline and what must be started before it and closed after it."""

    def __init__(self) -> None:
        self.journal = Journal(STEPS, Spool(settings.SPOOL_DIR), settings.JOURNAL_WAIT_SECONDS)
        self.configurations = Configurations()
        self.rates, self.census = _rate_store()
        self.transport = _transport()
        self.sweeper = Sweeper(settings.SWEEP_SECONDS)
        self.usage_rolls = Recurring("summing up of usage", settings.ROLLUP_SECONDS, roll_usage)
        self.exporter = Exporter(settings.EXPORT_CHECK_SECONDS)
        self.pipeline = Pipeline(
            admission=Admission(
                in_flight=settings.MAX_IN_FLIGHT,
                held=settings.MAX_HELD,
                longest_queue_age=settings.MAX_JOURNAL_QUEUE_AGE_SECONDS,
                queue_age=self.journal.queue_age,
            ),
            configurations=self.configurations,
            rates=self.rates,
            journal=self.journal,
            transport=self.transport,
            environment=environment(),
            deadline_seconds=settings.REQUEST_DEADLINE_SECONDS,
        )

    async def start(self) -> None:
        """Open what needs the running loop, and compile the detectors before the first request needs them."""
        await self.transport.start()
        if self.census is not None:
            self.census.start()
        await asyncio.get_running_loop().run_in_executor(None, warm)
        await asyncio.get_running_loop().run_in_executor(None, wrapping.prepare)

    def start_sweeping(self) -> None:
        """Do, every now and then, what no request does: resolve what dead processes left open, write what they left
        in the spool, sum up usage, export.
        """
        self.journal.start()
        for work in self._recurring():
            work.start()

    def _recurring(self) -> tuple[Recurring, ...]:
        return self.sweeper, self.usage_rolls, self.exporter

    async def stop(self) -> None:
        """Finish what is under way and write everything that waits. A database that hangs does not delay the end."""
        loop = asyncio.get_running_loop()
        recurring = [loop.run_in_executor(None, work.stop) for work in self._recurring()]
        await self.pipeline.close()
        await loop.run_in_executor(None, self.journal.stop)
        await self.transport.close()
        if self.census is not None:
            await self.census.stop()
        await self.rates.close()
        await loop.run_in_executor(None, self.configurations.close)
        await asyncio.gather(*recurring)


class BackgroundLoop:
    """An event loop in a thread of its own, with a runtime on it: what the WSGI door calls into."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runtime: Runtime | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop()).result()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop; started on first use in each process."""
        self._ensure()
        assert self._loop is not None
        return self._loop

    def runtime(self) -> Runtime:
        """Return the runtime on the loop."""
        self._ensure()
        assert self._runtime is not None
        return self._runtime

    def adopt(self, runtime: Runtime) -> None:
        """Use the runtime of the running loop's server: so its pages see the same limits as its requests."""
        self._runtime, self._loop, self._pid = runtime, asyncio.get_running_loop(), os.getpid()

    def release(self) -> None:
        """Forget an adopted runtime, whose server ends."""
        self._runtime = self._loop = None

    def finish_loose_ends(self) -> None:
        """Wait for what answered requests have left to do; where none needed the loop, there is nothing."""
        if self._loop is not None and self._pid == os.getpid():
            self.run(self.runtime().pipeline.close())

    def stop(self) -> None:
        """Stop the runtime and the loop; a later use starts new ones."""
        with self._lock:
            loop, runtime = self._loop, self._runtime
            if loop is None or runtime is None or self._pid != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(runtime.stop(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._loop = self._runtime = None

    def _ensure(self) -> None:
        if self._loop is not None and self._pid == os.getpid():
            return
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._start()

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="gateway-loop", daemon=True).start()
        self._runtime = asyncio.run_coroutine_threadsafe(_started(), loop).result()
        self._loop, self._pid = loop, os.getpid()


async def _started() -> Runtime:
    runtime = Runtime()
    await runtime.start()
    return runtime


BACKGROUND = BackgroundLoop()


def environment() -> Environment:
    """Return what the operator's environment serves without a route."""
    endpoints = {}
    if settings.OPENAI_API_KEY:
        endpoints["gpt-"] = Endpoint("openai", settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY, trusted=True)
    return Environment(endpoints, settings.SIMULATED_PROVIDER)


def _rate_store() -> tuple[RateStore, Census | None]:
    """Return the rate limits, and what counts the processes that share them if there may be several."""
    if not settings.REDIS_URL:
        return MemoryRateStore(), None
    primary = RedisRateStore(settings.REDIS_URL, prefix="lcp")
    census = Census(primary, at_least=settings.WORKERS)
    mode = WhenUnavailable(settings.RATES_WHEN_REDIS_FAILS)
    return FallbackRateStore(primary, mode, processes=census.processes), census


def _transport() -> Transport:
    return Transport(
        timeouts=Timeouts(
            settings.PROVIDER_CONNECT_SECONDS,
            settings.PROVIDER_FIRST_BYTE_SECONDS,
            settings.PROVIDER_IDLE_SECONDS,
            settings.REQUEST_DEADLINE_SECONDS,
        ),
        limits=Limits(settings.PROVIDER_CONNECTIONS, settings.PROVIDER_REPLY_BYTES),
        allowed_networks=allowed_networks(),
        simulated=settings.SIMULATED_PROVIDER,
    )
