"""An organization with an application, a key and policies, and a pipeline in this process to call."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from apps.audit.journal import Journal
from apps.audit.models import OpenRequest, RequestRecord, RequestText
from apps.audit.spool import Spool
from apps.gateway.admission import Admission
from apps.gateway.bookkeeping import STEPS
from apps.gateway.configuration import Configurations
from apps.gateway.pipeline import Answer, Pipeline
from apps.gateway.routing import Environment
from apps.gateway.transport import Transport
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Organization
from apps.policies.models import Policy, Price
from apps.policies.rates.memory import MemoryRateStore

LOOPBACK = ip_network("127.0.0.0/8")
PRICE = {"provider": "simulated", "model": "sim-*", "input_nano_usd": 10**9, "output_nano_usd": 2 * 10**9}


@dataclass
class House:
    """One tenant, with policies given as (kind, config) pairs; it allows every simulated model unless told not to."""

    policies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    allow: tuple[str, ...] = ("sim-*",)

    def __post_init__(self) -> None:
        self.organization = Organization.objects.create(name=f"house {uuid4()}")
        self.application = Application.objects.create(organization=self.organization, name="app")
        if not Price.objects.filter(**PRICE).exists():
            Price.objects.create(**PRICE)
        if self.allow:
            self.add("model_restriction", {"allow": list(self.allow)})
        for kind, config in self.policies:
            self.add(kind, config)
        issued = keys.issue(organization=self.organization, application=self.application, name="key")
        self.key: str = issued.text
        self.api_key: ApiKey = issued.row

    def add(self, kind: str, config: dict[str, Any], mode: str = "enforce", **scope: Any) -> Policy:
        policy = Policy(
            organization=self.organization, name=f"{kind} policy", kind=kind, mode=mode, config=config, **scope
        )
        policy.full_clean()
        policy.save()
        return policy

    def records(self) -> list[RequestRecord]:
        return list(RequestRecord.objects.filter(organization_id=self.organization.id).order_by("id"))

    def only_record(self) -> RequestRecord:
        (record,) = self.records()
        return record

    def open_requests(self) -> int:
        return OpenRequest.objects.filter(organization_id=self.organization.id).count()

    def text(self, record_id: UUID) -> RequestText:
        return RequestText.objects.get(id=record_id)


class Request:
    """A request as a door would hand it in."""

    content_encoding = ""

    def __init__(self, key: str, body: bytes) -> None:
        self.authorization = [f"Bearer {key}"]
        self._body = body
        self.left = False

    async def body(self) -> bytes:
        return self._body

    def gone(self) -> bool:
        return self.left


def chat(key: str, model: str = "sim-echo", text: str = "Hello", **fields: Any) -> Request:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return Request(key, json.dumps(body).encode())


@asynccontextmanager
async def pipeline(folder: Path, **parts: Any) -> AsyncIterator[Pipeline]:
    """A pipeline on this loop, with real parts but for those given."""
    journal = Journal(STEPS, Spool(folder), wait_seconds=5)
    transport = parts.pop("transport", None) or Transport(allowed_networks=[LOOPBACK], simulated=True)
    await transport.start()
    configurations = Configurations()
    given: dict[str, Any] = {
        "admission": Admission(in_flight=64, held=1000, longest_queue_age=5, queue_age=journal.queue_age),
        "configurations": configurations,
        "rates": MemoryRateStore(),
        "journal": journal,
        "transport": transport,
        "environment": Environment({}, simulated=True),
        "deadline_seconds": 60.0,
        **parts,
    }
    built = Pipeline(**given)
    try:
        yield built
    finally:
        await built.close()
        await asyncio.get_running_loop().run_in_executor(None, built.journal.stop)
        await transport.close()
        await asyncio.get_running_loop().run_in_executor(None, built.configurations.close)


async def read_all(answer: Answer) -> bytes:
    """Return the whole answer, streamed or not."""
    if answer.stream is None:
        return answer.body
    return b"".join([piece async for piece in answer.stream])


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a test's coroutine."""
    return asyncio.run(_as_coroutine(work))


async def _as_coroutine(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()
