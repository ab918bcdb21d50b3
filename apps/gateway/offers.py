"""Routes for the models that a provider lists: what could be routed, at which price, and what is already."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Max
from django.utils import timezone

from apps.audit.money import usd_from_nano
from apps.gateway.models import ModelRoute
from apps.orgs.models import ProviderCredential
from apps.policies.models import Price
from apps.policies.prices import ModelPrice, PriceBook


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that could be routed. ``price`` is in words; empty: nobody knows it, and its requests are refused."""

    model: str
    price: str
    routed: bool


def offers(credential: ProviderCredential, models: Iterable[str]) -> list[Offer]:
    """Return the listed models, those with a known price first."""
    book, now = PriceBook(Price.objects.all()), timezone.now()
    routed = set(ModelRoute.objects.filter(credential=credential).values_list("model", flat=True))
    found = [
        Offer(name, _in_words(book.price(credential.provider, name, now)), routed=name in routed) for name in models
    ]
    return sorted(found, key=lambda offer: (not offer.price, offer.model))


def new_routes(credential: ProviderCredential, models: Iterable[str]) -> list[ModelRoute]:
    """Return unsaved routes to a credential, each tried after those that its model has already.

    Raises `django.core.exceptions.ValidationError` for a name that is none.
    """
    there = ModelRoute.objects.filter(organization=credential.organization_id)
    last = dict(there.values_list("model").annotate(last=Max("priority")).order_by())
    done = set(there.filter(credential=credential).values_list("model", flat=True))
    routes = [
        ModelRoute(
            organization=credential.organization,
            credential=credential,
            model=name,
            priority=last[name] + 1 if name in last else 0,
        )
        for name in dict.fromkeys(models)
        if name not in done
    ]
    for route in routes:
        route.full_clean()
    return routes


def _in_words(price: ModelPrice | None) -> str:
    if price is None:
        return ""
    sides = [usd_from_nano(rate.tiers[0][1]) for rate in (price.input, price.output)]
    return f"{sides[0]} in, {sides[1]} out"
