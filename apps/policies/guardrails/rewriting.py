"""A text with pieces replaced, and the way back from any span of the new text to the old one."""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from re import Pattern
from typing import Final, TypeAlias

Span: TypeAlias = tuple[int, int]


def _offsets() -> "array[int]":
    return array("Q")


@dataclass(frozen=True, slots=True)
class Edits:
    """Replaced pieces in order: where each stood in the old text and where its replacement stands in the new one."""

    old_starts: "array[int]" = field(default_factory=_offsets)
    old_ends: "array[int]" = field(default_factory=_offsets)
    new_starts: "array[int]" = field(default_factory=_offsets)
    new_ends: "array[int]" = field(default_factory=_offsets)

    def __bool__(self) -> bool:
        return bool(self.old_starts)

    def add(self, old: Span, new: Span) -> None:
        """Append a piece; both spans lie after those of the last one."""
        self.old_starts.append(old[0])
        self.old_ends.append(old[1])
        self.new_starts.append(new[0])
        self.new_ends.append(new[1])

    def old_span(self, start: int, end: int) -> Span:
        """Return the span of the old text behind a span (not empty) of the new one; a piece counts as a whole."""
        return self._old(start)[0], self._old(end - 1)[1]

    def _old(self, position: int) -> Span:
        last = bisect_right(self.new_starts, position) - 1
        if last < 0:
            return position, position + 1
        if position < self.new_ends[last]:
            return self.old_starts[last], self.old_ends[last]
        shifted = position - self.new_ends[last] + self.old_ends[last]
        return shifted, shifted + 1


UNCHANGED: Final = Edits()


def rewrite(
    text: str, pieces: Pattern[str], replacement: Callable[[str], str | None], between: Callable[[str], str]
) -> tuple[str, Edits]:
    """Return ``text`` with each match of ``pieces`` replaced and the rest passed through ``between``.

    ``replacement`` returns ``None`` for a piece that stays; ``between`` keeps the length of what it is given.
    """
    edits = Edits()
    parts: list[str] = []
    done = length = 0
    for match in pieces.finditer(text):
        new = replacement(match.group())
        if new is None:
            continue
        start, end = match.span()
        parts += (between(text[done:start]), new)
        length += start - done
        edits.add((start, end), (length, length + len(new)))
        length += len(new)
        done = end
    parts.append(between(text[done:]))
    return "".join(parts), edits
