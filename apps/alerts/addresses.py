"""Which addresses a message may be posted to: those that a provider's may be, by the same rule and the same code."""

from ipaddress import ip_network

from django.conf import settings
from django.core.exceptions import ValidationError

from apps.gateway.addresses import IPNetwork, check_entered
from apps.gateway.providers.base import UpstreamError

MOST_CHARACTERS = 500


def allowed_networks() -> list[IPNetwork]:
    """Return the networks that the operator allows although they are not public."""
    return [ip_network(network) for network in settings.PROVIDER_ALLOWED_NETWORKS]


def check_destination(url: str, field: str) -> None:
    """Raise `ValidationError` for a URL that no message would be posted to. Names are resolved when it is sent."""
    try:
        check_entered(url, allowed_networks())
    except UpstreamError as error:
        raise ValidationError({field: in_words(error)}) from None


def in_words(error: UpstreamError) -> str:
    """Return what is wrong with an address, which is no provider's here."""
    return error.message.replace("The provider's URL", "The URL")
