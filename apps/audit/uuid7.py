"""UUIDs whose first 48 bits are the time (RFC 9562, section 5.7): ids that sort by time and choose a partition."""

import os
import time
from datetime import UTC, datetime
from uuid import UUID

_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_RANDOM_BITS = ~((0xFFFFFFFFFFFF << 80) | (0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)


_RANDOM_BYTES, _AT_ONCE = 10, 400
_pool: list[int] = []
# A forked child must not make the ids that its parent is going to make.
os.register_at_fork(after_in_child=_pool.clear)


def uuid7() -> UUID:
    """Make an id for now, of the system's clock in milliseconds."""
    try:
        random = _pool.pop()
    except IndexError:
        random = _refill()
    return UUID(int=(time.time_ns() // 1_000_000) << 80 | _VERSION_AND_VARIANT | random)


def _refill() -> int:
    """Draw the random bits of many ids with one call of the system; return the last and keep the others."""
    drawn = os.urandom(_RANDOM_BYTES * _AT_ONCE)
    numbers = [
        int.from_bytes(drawn[start : start + _RANDOM_BYTES], "big") & _RANDOM_BITS
        for start in range(0, len(drawn), _RANDOM_BYTES)
    ]
    last = numbers.pop()
    _pool.extend(numbers)
    return last


def first_id_at(moment: datetime) -> UUID:
    """Return the lower bound of all ids made at or after ``moment`` (aware): a partition's edge, a search's edge."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def moment_of(some_id: UUID) -> datetime:
    """Return when an id was made, of its maker's clock."""
    return datetime.fromtimestamp((some_id.int >> 80) / 1000, UTC)
