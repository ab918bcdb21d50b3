"""Server-sent events, from bytes as they arrive to the data of each event.

The rules are those of the WHATWG HTML standard, section 9.2.6: lines end in CRLF, LF or CR; a blank line ends an event;
an event's ``data`` lines are joined by LF; comments and other fields mean nothing here; what follows the last
blank line is no event.
"""

from apps.gateway.providers.base import Fault, UpstreamError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventDecoder:
    """Decodes one stream, in pieces cut anywhere. Its time is linear in the bytes, however they are cut."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()  # an event that is not complete yet
        self._searched = 0  # how much of it was searched for its end
        self._after_cr = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; give the data of every event that they complete, in order.

        Raises `UpstreamError` (GARBAGE) for an event of more than ``max_event_bytes``.
        """
        if self._after_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        if self._rest or not piece.endswith(b"\n\n"):
            piece = self._take_complete(piece)
        if not piece:
            return []
        if self._at_start:
            self._at_start = False
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        return self._data_of(piece)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        # A CR ends its line at once; the LF that may follow it in the next piece is then none of its own.
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _take_complete(self, piece: bytes) -> bytes:
        """Keep what belongs to an unfinished event; give all that comes before it."""
        rest = self._rest
        rest += piece
        end = rest.rfind(b"\n\n", self._searched)
        complete = b""
        if end >= 0:
            complete = bytes(rest[: end + 2])
            del rest[: end + 2]
        self._searched = max(len(rest) - 1, 0)
        if len(rest) > self._max_event_bytes:
            raise self._too_large()
        return complete

    def _data_of(self, blocks: bytes) -> list[bytes]:
        may_be_too_large = len(blocks) > self._max_event_bytes
        events = []
        for block in blocks.split(b"\n\n"):
            if may_be_too_large and len(block) > self._max_event_bytes:
                raise self._too_large()
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(block[6:])
            elif (data := _joined_data(block)) is not None:
                events.append(data)
        return events

    def _too_large(self) -> UpstreamError:
        return UpstreamError(Fault.GARBAGE, "The provider sent an event that is too large.")


def _joined_data(block: bytes) -> bytes | None:
    """Join the data lines of one event; ``None`` if it has none."""
    lines = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
