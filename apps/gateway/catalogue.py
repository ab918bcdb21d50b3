"""Which models a provider lists for a credential: the test of one. Asked with the vendor's SDK, as its users ask.

On the request's path an SDK is too slow; here it is the reference for what the provider expects. The connection is
the gateway's own (`checked_transport`): an SDK knows nothing of addresses that must not be reached.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from apps.gateway.addresses import IPNetwork
from apps.gateway.providers.base import Endpoint, Fault, UpstreamError
from apps.gateway.simulated import simulated_models

MOST_AT_ONCE = 2
"""Questions of one process under way: each holds a thread of the admin's pages, and those are few."""
SECONDS = 15.0
SILENCE_SECONDS = 8.0
MOST_BYTES = 8 * 1024 * 1024
MOST_MODELS = 1000
MOST_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class _Sdk:
    """A vendor's SDK: its module, its client, what its list of models is asked with, and what it adds to a base URL."""

    module: str
    client: str
    adds: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def base_url(self, endpoint: Endpoint) -> str:
        return endpoint.base_url.rstrip("/").removesuffix(self.adds)


_OPENAI = _Sdk("openai", "AsyncOpenAI")
_SDKS = {
    "openai": _OPENAI,
    "openai_compatible": _OPENAI,
    "anthropic": _Sdk("anthropic", "AsyncAnthropic", adds="/v1", arguments={"limit": MOST_MODELS}),
}


def list_models(endpoint: Endpoint, allowed_networks: Sequence[IPNetwork], *, simulated: bool) -> list[str]:
    """Return the names of the models that a provider lists, `MOST_MODELS` at most. Blocks for `SECONDS` at most.

    Costs nothing. Raises `UpstreamError`, whose message tells a person what is wrong and never holds the secret.
    ``simulated`` says whether the simulated provider is switched on.
    """
    if endpoint.provider == "simulated":
        if not simulated:
            raise UpstreamError(Fault.ADDRESS, "The simulated provider is switched off here.")
        return simulated_models()
    if endpoint.provider not in _SDKS:
        raise UpstreamError(Fault.REFUSED, "This kind of provider cannot be asked for its models.")
    if not _places.acquire(blocking=False):
        raise UpstreamError(Fault.CONNECT, "Other credentials are being tested right now. Try again in a moment.")
    try:
        return _listed(endpoint, allowed_networks)
    finally:
        _places.release()


_places = threading.BoundedSemaphore(MOST_AT_ONCE)


def _listed(endpoint: Endpoint, allowed_networks: Sequence[IPNetwork]) -> list[str]:
    chosen = _SDKS[endpoint.provider]
    sdk = import_module(chosen.module)  # seconds, so before the clock of the question runs
    try:
        page = asyncio.run(asyncio.wait_for(_ask(sdk, chosen, endpoint, allowed_networks), SECONDS))
    except TimeoutError:
        raise _silent() from None
    except (sdk.APIError, *_STUMBLES) as error:
        raise _in_words(error) from None
    return _names(page)


_STUMBLES = (UpstreamError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What else comes out of an SDK: what our transport says, and what an answer of another shape leads to."""


async def _ask(sdk: Any, chosen: _Sdk, endpoint: Endpoint, allowed_networks: Sequence[IPNetwork]) -> Any:
    import httpx2  # noqa: PLC0415  # as `checked_transport` says

    from apps.gateway.checked_transport import CheckedTransport  # noqa: PLC0415  # as above

    transport = CheckedTransport(allowed_networks, MOST_BYTES)
    timeout = httpx2.Timeout(SILENCE_SECONDS)
    async with httpx2.AsyncClient(
        transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
    ) as client:
        vendor = getattr(sdk, chosen.client)(
            api_key=endpoint.secret,
            base_url=chosen.base_url(endpoint),
            max_retries=0,
            timeout=timeout,
            http_client=client,
        )
        return await vendor.models.list(**chosen.arguments)


def _names(page: Any) -> list[str]:
    data = getattr(page, "data", None)
    if not isinstance(data, list):
        raise _no_list()
    names = [getattr(entry, "id", None) for entry in data]
    good = {name for name in names if isinstance(name, str) and _is_name(name)}
    if names and not good:
        raise _no_list()
    return sorted(good)[:MOST_MODELS]


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MOST_CHARACTERS and name.isprintable() and name == name.strip()


# --- What went wrong, in words. An SDK's own messages stay out: they quote the answer, and that may quote the key.


def _in_words(error: BaseException) -> UpstreamError:
    causes = list(_causes(error))
    ours = next((cause for cause in causes if isinstance(cause, UpstreamError)), None)
    if ours is not None:
        return ours
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _answered(status)
    if any("Timeout" in type(cause).__name__ for cause in causes):
        return _silent()
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        message = "No secure connection could be made: the provider's certificate does not fit its address."
        return UpstreamError(Fault.CONNECT, message)
    if any(type(cause).__name__ == "APIConnectionError" for cause in causes):
        return UpstreamError(Fault.CONNECT, "The provider could not be reached: nothing answers at this address.")
    return _no_list()


def _answered(status: int) -> UpstreamError:
    if status == 401:
        message = "The provider refuses this key: it is mistyped, revoked, or of another provider."
        return UpstreamError(Fault.CREDENTIAL, message, status=status)
    if status == 403:
        message = "The provider knows this key and does not let it list models (status 403)."
        return UpstreamError(Fault.CREDENTIAL, message, status=status)
    if status == 404:
        message = "There is no list of models at this address (status 404). A base URL mostly ends in /v1."
    elif status == 429:
        message = "The provider takes no more requests with this key for now, or its account is empty (status 429)."
    else:
        message = f"The provider failed with status {status}. Try again later."
    return UpstreamError(Fault.REFUSED if status < 500 else Fault.SERVER, message, status=status)


def _silent() -> UpstreamError:
    return UpstreamError(Fault.TIMEOUT, "The provider did not answer in time.")


def _no_list() -> UpstreamError:
    message = "What answers at this address is no list of models. Check the base URL; it mostly ends in /v1."
    return UpstreamError(Fault.GARBAGE, message)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
