"""Which addresses a message may be posted to: those that a provider's may be, by the same rule and the same code."""

from django.core.exceptions import ValidationError

from apps.gateway.addresses import allowed_networks, check_entered
from apps.gateway.providers.base import UpstreamError

MOST_CHARACTERS = 500


def check_destination(url: str, field: str) -> None:
    """Raise `ValidationError` for a URL that no message would be posted to. Names are resolved when it is sent."""
    try:
        check_entered(url, allowed_networks())
    except UpstreamError as error:
        raise ValidationError({field: in_words(error)}) from None


def in_words(error: UpstreamError) -> str:
    """Return what is wrong with an address, which is no provider's here."""
    return error.message.replace("The provider's URL", "The URL")
