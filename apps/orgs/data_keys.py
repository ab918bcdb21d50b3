"""Data keys: made at random, stored wrapped, and held open in memory for a bounded time and number."""

import os
import threading
import time
from collections import OrderedDict
from uuid import UUID

from django.conf import settings

from apps.orgs import wrapping
from apps.orgs.encryption import KEY_BYTES, PLATFORM, DecryptionError
from apps.orgs.wrapping import Context, Wrapped

MAX_OPEN = 1000
"""Data keys that a process holds open at once."""


class OpenKeys:
    """Unwrapped data keys, each for ``DATA_KEY_SECONDS``; the one that was opened first goes first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[UUID, str, Wrapped], tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key_id: UUID, owner: str, wrapped: Wrapped) -> bytes:
        """Return a data key, unwrapped now or a moment ago. Raises `DecryptionError` or `KeysUnavailable`."""
        place = (key_id, owner, wrapped)
        with self._lock:
            self._drop_old()
            held = self._keys.get(place)
        if held is not None:
            return held[1]
        key = wrapping.unwrap(wrapped, _context(key_id, owner))
        with self._lock:
            self._keys.pop(place, None)
            self._keys[place] = (time.monotonic() + settings.DATA_KEY_SECONDS, key)
            while len(self._keys) > MAX_OPEN:
                self._keys.popitem(last=False)
        return key

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._keys.clear()

    def __len__(self) -> int:
        return len(self._keys)

    def _drop_old(self) -> None:
        now = time.monotonic()
        while self._keys and next(iter(self._keys.values()))[0] <= now:
            self._keys.popitem(last=False)


OPEN = OpenKeys()


def make(key_id: UUID, organization: UUID | None) -> Wrapped:
    """Make a new data key; return it wrapped. Raises `KeysUnavailable`."""
    return _wrap(os.urandom(KEY_BYTES), _context(key_id, _owner(organization)))


def opened(key_id: UUID, organization: UUID | None, wrapped: Wrapped) -> bytes:
    """Return a data key unwrapped. Raises `DecryptionError` or `KeysUnavailable`."""
    return OPEN.get(key_id, _owner(organization), wrapped)


def rewrap(key_id: UUID, organization: UUID | None, wrapped: Wrapped) -> Wrapped:
    """Wrap the same data key by the current wrapping key. Raises `DecryptionError` or `KeysUnavailable`."""
    context = _context(key_id, _owner(organization))
    return _wrap(wrapping.unwrap(wrapped, context), context)


def _wrap(key: bytes, context: Context) -> Wrapped:
    """Wrap a key, and see it unwrapped: with a data key everything under it would be lost."""
    wrapped = wrapping.wrap(key, context)
    if wrapping.unwrap(wrapped, context) != key:
        raise DecryptionError("The wrapping key does not give back what it was given.")
    return wrapped


def _owner(organization: UUID | None) -> str:
    return str(organization) if organization else PLATFORM


def _context(key_id: UUID, owner: str) -> Context:
    return {"organization": owner, "data_key": str(key_id)}
