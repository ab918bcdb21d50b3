"""Calls through the real transport, for tests that speak to the mock upstream or to the simulated provider."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any, TypeVar

import orjson

from apps.gateway.providers.base import Endpoint, UpstreamRequest
from apps.gateway.transport import Limits, Timeouts, Transport, UpstreamResponse

T = TypeVar("T")

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def run(call: Callable[[Transport], Awaitable[T]], **options: Any) -> T:
    """Run a coroutine function with a started transport that may reach this machine; one that hangs fails."""

    async def main() -> T:
        transport = Transport(**{"allowed_networks": LOOPBACK, "simulated": True, **options})
        async with asyncio.timeout(30), transport:
            return await call(transport)

    return asyncio.run(main())


def post(url: str, body: Any = None, *, trusted: bool = False) -> UpstreamRequest:
    return UpstreamRequest("POST", url, {"content-type": "application/json"}, orjson.dumps(body or {}), trusted=trusted)


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


async def read(transport: Transport, request: UpstreamRequest) -> tuple[UpstreamResponse, bytes]:
    response = await transport.send(request)
    try:
        return response, await response.read()
    finally:
        await response.close()


async def read_events(transport: Transport, request: UpstreamRequest) -> list[bytes]:
    response = await transport.send(request)
    try:
        return [event async for event in response.events()]
    finally:
        await response.close()


def endpoint(base_url: str, secret: str = "") -> Endpoint:
    return Endpoint("openai", base_url, secret)


__all__ = ["LOOPBACK", "Limits", "Timeouts", "chat", "endpoint", "post", "read", "read_events", "run"]
