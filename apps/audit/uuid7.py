"""UUIDs whose first 48 bits are the time (RFC 9562, section 5.7): ids that sort by time and choose a partition."""

import os
import time
from datetime import datetime
from uuid import UUID

_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_RANDOM_BITS = ~((0xFFFFFFFFFFFF << 80) | (0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)


def uuid7() -> UUID:
    """Make an id for now, of the system's clock in milliseconds."""
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS
    return UUID(int=(time.time_ns() // 1_000_000) << 80 | _VERSION_AND_VARIANT | random)


def first_id_at(moment: datetime) -> UUID:
    """Return the lower bound of all ids made at or after ``moment`` (aware): a partition's edge, a search's edge."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
