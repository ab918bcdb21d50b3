"""The gateway's address check beneath a vendor's SDK: what it may connect to, send and receive.

Importing this loads the SDKs' HTTP client: only who is about to use one does.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

import httpx2

from apps.gateway.addresses import IPAddress, IPNetwork, Location, check_addresses, locate
from apps.gateway.providers.base import Fault, UpstreamError

MOST_ADDRESSES = 4
SENT = frozenset({"accept", "anthropic-version", "authorization", "x-api-key"})
"""The headers that go on. An SDK adds others, some from the environment: the operator's own organization, say."""


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Connects to checked addresses alone: the host is resolved once, and the connection made to what was checked.

    No proxy, no redirect, no compression, and an answer of ``most_bytes`` at most. Raises `UpstreamError`.
    """

    def __init__(self, allowed_networks: Sequence[IPNetwork], most_bytes: int) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._most_bytes = most_bytes
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, to the first of the host's addresses that takes it."""
        location = locate(str(request.url))
        addresses = [location.literal] if location.literal else await _resolve(location)
        check_addresses(addresses, location.rule(trusted=False), self._allowed_networks)
        *others, last = addresses[:MOST_ADDRESSES]
        for address in others:
            try:
                return await self._send(request, location, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send(request, location, last)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _send(self, request: httpx2.Request, location: Location, address: IPAddress) -> httpx2.Response:
        headers = [(name, value) for name, value in request.headers.items() if name in SENT]
        headers += [("host", location.url.raw_authority), ("accept-encoding", "identity")]
        # The certificate is held against the name, wherever that led.
        extensions = {**request.extensions, "sni_hostname": location.host}
        response = await self._inner.handle_async_request(
            httpx2.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=headers,
                stream=request.stream,
                extensions=extensions,
            )
        )
        if 300 <= response.status_code < 400:
            await response.aclose()
            message = "The provider sends requests on to another address, which the gateway does not follow."
            raise UpstreamError(Fault.REFUSED, message, status=response.status_code)
        return httpx2.Response(
            response.status_code,
            headers=[(n, v) for n, v in response.headers.multi_items() if n.lower() != "content-encoding"],
            stream=_Bounded(response, self._most_bytes),
            extensions=response.extensions,
        )


class _Bounded(httpx2.AsyncByteStream):
    """An answer's body as it comes, up to its bound."""

    def __init__(self, response: httpx2.Response, most_bytes: int) -> None:
        self._response = response
        self._left = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_raw():
            self._left -= len(piece)
            if self._left < 0:
                raise UpstreamError(Fault.GARBAGE, "The provider's answer is too large.")
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


async def _resolve(location: Location) -> list[IPAddress]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(location.host, location.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UpstreamError(Fault.CONNECT, "The provider's host name has no address.") from None
    return [ip_address(sockaddr[0]) for *_, sockaddr in found]
