"""What a rule is, and the candidate that its pattern puts before its check."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.folding import SEPARATOR
from apps.policies.guardrails.rewriting import Span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A span of folded text that a pattern matched, with the text around it."""

    data: bytes
    start: int
    end: int

    @property
    def value(self) -> bytes:
        """The span itself."""
        return self.data[self.start : self.end]

    @property
    def span(self) -> Span:
        """Where it stands."""
        return self.start, self.end

    def before(self, length: int) -> bytes:
        """Up to ``length`` bytes of the same text in front of the span."""
        return self.data[max(0, self.start - length) : self.start].rpartition(SEPARATOR)[2]

    def after(self, length: int) -> bytes:
        """Up to ``length`` bytes of the same text behind the span."""
        return self.data[self.end : self.end + length].partition(SEPARATOR)[0]

    def part(self, start: int, end: int) -> "Candidate":
        """A piece of it, by offsets inside of the value."""
        return Candidate(self.data, self.start + start, self.start + end)


Check: TypeAlias = Callable[[Candidate], Iterable[Span]]


def accept(candidate: Candidate) -> tuple[Span]:
    """Take every candidate as it is."""
    return (candidate.span,)


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of a detector over folded text, and the check of what it matches.

    ``pattern`` is in the syntax that Hyperscan and RE2 share; its first group, where it has one, is the candidate.
    No class in it may admit the separator of texts. ``hint`` is a cheaper pattern that matches in every text
    that ``pattern`` matches in. ``most_checks`` bounds an expensive check: a text that offers more candidates than
    that gets the others accepted unchecked.
    """

    detector: Detector
    name: str
    pattern: str
    check: Check = accept
    hint: str = ""
    most_checks: int = 10**9
