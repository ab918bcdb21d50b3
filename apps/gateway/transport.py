"""The one way from the gateway to the providers: pools, timeouts, byte caps, address checks.

    async with Transport(...) as transport:        # one per event loop, started and closed with its server
        response = await transport.send(request)   # returns when the status and headers are there
        try:
            body = await response.read()           # or: async for events in response.event_batches()
        finally:
            await response.close()

Everything that goes wrong is an `UpstreamError`, whose message names neither the address nor the request.
"""

import asyncio
import ipaddress
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from apps.gateway import simulated as origin
from apps.gateway.addresses import AddressRule, IPNetwork, check_addresses, locate, refused
from apps.gateway.event_stream import EventDecoder
from apps.gateway.providers.base import Fault, UpstreamError, UpstreamRequest

__all__ = ["Limits", "Timeouts", "Transport", "UpstreamResponse"]

_USER_AGENT = "llm-control-plane"
_DNS_CACHE_SECONDS = 30
_KEEPALIVE_SECONDS = 15
_FINISH_SECONDS = 1.0
_FINISH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``first_byte`` runs to the headers and again to the body's first byte, ``idle`` between later ones.

    ``connect`` covers the wait for a free connection, name resolution and TLS; ``total`` covers a call that is given no
    deadline.
    """

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transport may hold: open connections (per address rule), and decompressed bytes of one answer."""

    connections: int = 10_000
    reply_bytes: int = 32 * 1024 * 1024
    event_bytes: int = 4 * 1024 * 1024
    stream_bytes: int = 256 * 1024 * 1024


class _Body(Protocol):
    """An answer's body as it arrives: decompressed bytes, ``b""`` at its end."""

    @property
    def readany(self) -> Callable[[], Awaitable[bytes]]: ...

    def drop(self) -> None: ...


class UpstreamResponse:
    """An answer whose headers have arrived. Read it once, whole or as events, and close it in any case.

    ``headers`` are looked up by lower-case names.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: _Body, limits: Limits) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._limits = limits
        self._received_bytes = 0

    async def read(self) -> bytes:
        """Read the whole answer. Raises `UpstreamError`: TIMEOUT, BROKEN, or GARBAGE if it is too large."""
        limit = self._limits.reply_bytes
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise self._too_large()
        pieces = []
        while piece := await self._piece(limit):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def event_batches(self) -> AsyncIterator[list[bytes]]:
        """Yield the data of the server-sent events, as many at a time as have arrived; never an empty list.

        Raises `UpstreamError`: TIMEOUT, BROKEN, or GARBAGE if an event or the stream is too large. An answer
        that was read to its end leaves its connection usable; see `finish` for one left at its end mark.
        """
        decoder = EventDecoder(self._limits.event_bytes)
        limit = self._limits.stream_bytes
        while piece := await self._piece(limit):
            if events := decoder.feed(piece):
                yield events

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the data of each server-sent event; see `event_batches`."""
        async for batch in self.event_batches():
            for event in batch:
                yield event

    async def finish(self) -> None:
        """Close after the provider's own end mark: what may follow is read away, so that the connection stays usable.

        Waits up to a second for the end of the answer; never raises for what comes instead.
        """
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                while await self._piece(self._received_bytes + _FINISH_BYTES):
                    pass
        await self.close()

    async def close(self) -> None:
        """Drop what was not read, together with its connection. May be called any number of times."""
        self._body.drop()

    async def _piece(self, limit: int) -> bytes:
        try:
            piece = await self._body.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise _upstream_error(error) from None
        self._received_bytes += len(piece)
        if self._received_bytes > limit:
            raise self._too_large()
        return piece

    def _too_large(self) -> UpstreamError:
        self._body.drop()
        return UpstreamError(Fault.GARBAGE, "The provider's answer is too large.", status=self.status)


class Transport:
    """Sends requests to providers over pooled connections. Belongs to the event loop that started it."""

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        allowed_networks: Sequence[IPNetwork] = (),
        simulated: bool = False,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._allowed_networks = tuple(allowed_networks)
        self._simulated = simulated
        self._sessions: dict[AddressRule, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the pools. One per address rule: a checked request never meets an unchecked one's connection."""
        if not self._sessions:
            self._sessions = {rule: self._new_session(rule) for rule in AddressRule}

    async def close(self) -> None:
        """Close every connection. May be called any number of times."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def send(self, request: UpstreamRequest, deadline: float | None = None) -> UpstreamResponse:
        """Send a request; return when its answer's headers are there, whatever its status.

        ``deadline`` is by the event loop's clock: the whole answer must have come by then, or reading it fails too.
        Raises `UpstreamError`: ADDRESS, CONNECT (nothing was sent), TIMEOUT, BROKEN or GARBAGE.
        """
        now = asyncio.get_running_loop().time()
        if deadline is None:
            deadline = now + self._timeouts.total
        if deadline <= now:
            raise UpstreamError(Fault.CONNECT, "No time was left to call the provider.")
        if request.url.startswith(origin.SCHEME):
            return await self._simulate(request, deadline)
        location = locate(request.url)
        rule = location.rule(trusted=request.trusted)
        if location.literal:
            check_addresses([location.literal], rule, self._allowed_networks)
        try:
            response = await self._session(rule).request(
                request.method,
                location.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    deadline - now, self._timeouts.connect, self._timeouts.first_byte, ceil_threshold=math.inf
                ),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _upstream_error(error) from None
        return self._received(response)

    def _session(self, rule: AddressRule) -> aiohttp.ClientSession:
        try:
            return self._sessions[rule]
        except KeyError:
            raise RuntimeError("The transport is not started, or closed already.") from None

    def _received(self, response: aiohttp.ClientResponse) -> UpstreamResponse:
        body = _NetworkBody(response, self._timeouts.idle)
        return UpstreamResponse(response.status, response.headers, body, self._limits)

    async def _simulate(self, request: UpstreamRequest, deadline: float) -> UpstreamResponse:
        if not self._simulated:
            raise refused("The simulated provider is switched off.")
        first_byte = asyncio.get_running_loop().time() + self._timeouts.first_byte
        try:
            async with asyncio.timeout_at(min(first_byte, deadline)):
                answer = await origin.respond(request)
        except OSError as error:
            raise _upstream_error(error) from None
        body = _SimulatedBody(answer.body, deadline)
        return UpstreamResponse(answer.status, answer.headers, body, self._limits)

    def _new_session(self, rule: AddressRule) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(rule, self._allowed_networks),
            limit=self._limits.connections,
            ttl_dns_cache=_DNS_CACHE_SECONDS,
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": _USER_AGENT},
            trust_env=False,
        )


class _CheckedResolver(AbstractResolver):
    """Resolves a host once and hands on only checked addresses: the connection is made to one of these."""

    def __init__(self, rule: AddressRule, allowed_networks: Sequence[IPNetwork]) -> None:
        self._rule = rule
        self._allowed_networks = allowed_networks
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        addresses = [ipaddress.ip_address(result["host"]) for result in found]
        check_addresses(addresses, self._rule, self._allowed_networks)
        return found

    async def close(self) -> None:
        await self._resolver.close()


class _NetworkBody:
    def __init__(self, response: aiohttp.ClientResponse, idle: float) -> None:
        self._response = response
        self._idle = idle
        self.readany: Callable[[], Awaitable[bytes]] = self._read_first

    async def _read_first(self) -> bytes:
        content = self._response.content
        self.readany = content.readany
        piece = await content.readany()
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            # The timer that runs is still the first byte's: these bytes may have come with the headers.
            connection.protocol.read_timeout = self._idle
            connection.protocol.start_timeout()
        return piece

    def drop(self) -> None:
        # Once the answer has arrived to its end its connection is back in the pool, and this leaves it there.
        self._response.close()


class _SimulatedBody:
    def __init__(self, body: bytes | AsyncIterator[bytes], deadline: float) -> None:
        self._stream = _once(body) if isinstance(body, bytes) else body
        self._deadline = deadline
        self._dropped = False

    async def readany(self) -> bytes:
        if self._dropped:
            raise ConnectionResetError
        async with asyncio.timeout_at(self._deadline):
            return await anext(self._stream, b"")

    def drop(self) -> None:
        self._dropped = True


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


# The first row that fits; the client's own messages stay out, since they name hosts and may quote headers.
_FAULTS: tuple[tuple[type[Exception], Fault, str], ...] = (
    (aiohttp.InvalidURL, Fault.ADDRESS, "The provider's URL is not valid."),
    (aiohttp.ConnectionTimeoutError, Fault.CONNECT, "The provider could not be reached in time."),
    (aiohttp.ClientSSLError, Fault.CONNECT, "No secure connection to the provider could be made."),
    (aiohttp.ClientConnectorError, Fault.CONNECT, "The provider could not be reached."),
    (TimeoutError, Fault.TIMEOUT, "The provider did not answer in time."),
    (aiohttp.ClientResponseError, Fault.GARBAGE, "The provider's answer is not valid HTTP."),
    (aiohttp.ClientError, Fault.BROKEN, "The connection to the provider broke."),
    (OSError, Fault.BROKEN, "The connection to the provider broke."),
    (ValueError, Fault.CONNECT, "The request to the provider could not be sent."),
)


def _upstream_error(error: Exception) -> UpstreamError:
    if isinstance(error, aiohttp.ClientPayloadError) and isinstance(error.__cause__, ContentEncodingError):
        return UpstreamError(Fault.GARBAGE, "The provider's answer is not encoded as it says.")
    for kind, fault, message in _FAULTS:
        if isinstance(error, kind):
            return UpstreamError(fault, message)
    return UpstreamError(Fault.BROKEN, "The connection to the provider broke.")
