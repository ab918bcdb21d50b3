"""Many texts folded and joined into one, so that one pass reads them all, and the way back to each of them."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from apps.policies.guardrails.decoding import decode, fold_with_escapes
from apps.policies.guardrails.folding import SEPARATOR
from apps.policies.guardrails.rewriting import UNCHANGED, Edits, Span

_JOINT = SEPARATOR.decode("latin-1")


@dataclass(frozen=True)
class Joined:
    """The folded texts, apart and in one. ``edits`` is empty where every text came through the folding unchanged."""

    text: str
    texts: Sequence[str]
    edits: Sequence[Edits]

    @cached_property
    def starts(self) -> Sequence[int]:
        """Where each text starts in the whole; worked out where something was found, which is seldom."""
        return list(accumulate((len(text) + 1 for text in self.texts[:-1]), initial=0))

    def locate(self, start: int, end: int) -> tuple[int, int, int]:
        """Return the number of the text that a span of ``text`` lies in, and the span in that text as it came."""
        number = bisect_right(self.starts, start) - 1
        base = self.starts[number]
        edits = self.edits[number] if self.edits else UNCHANGED
        return number, *edits.old_span(start - base, end - base)


def join(texts: Sequence[str]) -> Joined:
    """Fold and join ``texts``."""
    as_they_came = "".join(texts)
    if as_they_came.isascii() and "\\" not in as_they_came:
        return Joined(_JOINT.join(texts), texts, ())
    folded = [fold_with_escapes(text) for text in texts]
    plain = [text for text, _ in folded]
    return Joined(_JOINT.join(plain), plain, [edits for _, edits in folded])


@dataclass(frozen=True, slots=True)
class Reading:
    """The joined texts as they are read: as they came, or with what was encoded decoded. ``steps`` lead back."""

    text: str
    data: bytes
    steps: tuple[Edits, ...] = ()

    def origin(self, span: Span) -> Span:
        """Return the span of the joined texts behind a span of this reading."""
        for edits in self.steps:
            span = edits.old_span(*span)
        return span

    def decoded(self) -> "Reading | None":
        """Return the next reading, or ``None`` if nothing in this one is encoded."""
        text, edits = decode(self.text)
        return Reading(text, text.encode("latin-1"), (edits, *self.steps)) if edits else None

    @classmethod
    def first(cls, text: str) -> "Reading":
        """Read the folded texts as they came."""
        return cls(text, text.encode("latin-1"))
