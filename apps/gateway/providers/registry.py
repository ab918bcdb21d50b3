"""Which adapter speaks for which provider. Each is imported when it is first asked for."""

from functools import cache
from importlib import import_module
from typing import cast

from apps.gateway.providers.base import Adapter

_ADAPTERS = {
    "openai": ("apps.gateway.providers.openai", "OpenAIAdapter"),
    "openai_compatible": ("apps.gateway.providers.openai", "OpenAIAdapter"),
    "simulated": ("apps.gateway.providers.simulated", "SimulatedAdapter"),
}


class UnknownProvider(LookupError):
    """No adapter has this name."""


@cache
def adapter_for(provider: str) -> Adapter:
    """Give the adapter of a provider's dialect; one instance serves all calls. Raises `UnknownProvider`."""
    try:
        module, name = _ADAPTERS[provider]
    except KeyError:
        raise UnknownProvider(provider) from None
    return cast("Adapter", getattr(import_module(module), name)())
