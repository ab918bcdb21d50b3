"""How often a password may be tried: by a name from an address, by a name, from an address, in a window.

Attempts are counted before the password is looked at, so that many at once get no more than one after another. They are
counted by what was typed, whether there is such a user or not. While Django's cache is away, each process counts alone:
people can still log in, and a guesser has as many attempts more as there are processes.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

T = TypeVar("T")
WINDOW_SECONDS = 900
OF_A_NAME_FROM_AN_ADDRESS = 5
OF_A_NAME = 50
FROM_AN_ADDRESS = 50


def take(address: str | None, name: str) -> bool:
    """Count an attempt; return whether it may be made."""
    counted = _reliably(lambda cache: [(_add(cache, key, 1), most) for key, most in _limits(address, name)])
    return all(count <= most for count, most in counted)


def give_back(address: str | None, name: str) -> None:
    """Forget an attempt that succeeded, and those before it of the same name from the same address."""
    (own, _), *others = _limits(address, name)
    _reliably(lambda cache: [cache.delete(own), *(_add(cache, key, -1) for key, _ in others)])


def _limits(address: str | None, name: str) -> list[tuple[str, int]]:
    place, person = address or "", name.casefold()
    return [
        (_key("both", place, person), OF_A_NAME_FROM_AN_ADDRESS),
        (_key("name", person), OF_A_NAME),
        (_key("address", place), FROM_AN_ADDRESS),
    ]


def _key(*parts: str) -> str:
    """Return a cache key that holds none of what was typed."""
    return f"attempts:{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def _add(cache: BaseCache, key: str, number: int) -> int:
    cache.add(key, 0, WINDOW_SECONDS)
    try:
        return cache.incr(key, number)
    except ValueError:  # the window ended in between
        return max(number, 0)


def _reliably(work: Callable[[BaseCache], T]) -> T:
    try:
        return work(caches["default"])
    except (RedisError, OSError) as error:
        logger.warning(
            "The cache is away (%s): attempts to log in are counted by this process alone.", type(error).__name__
        )
        return work(caches["local"])
