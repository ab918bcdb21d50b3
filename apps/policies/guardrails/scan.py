"""The scan: texts in, findings out, in time linear in the length of the texts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from apps.policies.guardrails.findings import MAX_FINDINGS_PER_TEXT, Finding
from apps.policies.guardrails.folding import SEPARATOR
from apps.policies.guardrails.matching import Database, database
from apps.policies.guardrails.overlaps import resolve
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules.rule import Candidate, Rule
from apps.policies.guardrails.texts import Joined, Reading, join

_MAX_DECODINGS = 2


def warm() -> None:
    """Compile all rules now rather than with the first text. Harmless when repeated."""
    database()


def scan(text: str) -> list[Finding]:
    """Return what every detector finds in ``text``, by position."""
    return scan_all((text,))[0]


def scan_all(texts: Sequence[str]) -> list[list[Finding]]:
    """Return `scan` of each of ``texts``, in one pass over all of them."""
    joined = join(texts)
    found = _found(joined, database())
    if not found:
        return [[] for _ in texts]
    return [found[number].resolved() if number in found else [] for number in range(len(texts))]


@dataclass(slots=True)
class _Found:
    """What was found in one text. ``rests``: from where a rule stopped counting to the end."""

    findings: list[Finding] = field(default_factory=list)
    rests: list[Finding] = field(default_factory=list)

    def resolved(self) -> list[Finding]:
        return resolve(self.findings, self.rests)


def _found(joined: Joined, rules: Database) -> defaultdict[int, _Found]:
    found: defaultdict[int, _Found] = defaultdict(_Found)
    for reading, occurring in _readings(joined.text, rules):
        for rule in occurring:
            for span, is_rest in _accepted(rule, rules.spans(rule, reading.data), reading.data):
                number, start, end = joined.locate(*reading.origin(span))
                finding = Finding(rule.detector, rule.name, start, end)
                (found[number].rests if is_rest else found[number].findings).append(finding)
    return found


def _readings(text: str, rules: Database) -> Iterator[tuple[Reading, Sequence[Rule]]]:
    reading: Reading | None = Reading.first(text)
    for decodings_left in range(_MAX_DECODINGS, -1, -1):
        if reading is None:
            return
        hits = rules.hits(reading.data)
        yield reading, hits.rules
        reading = reading.decoded() if hits.encoded and decodings_left else None


def _accepted(rule: Rule, spans: Iterator[Span], data: bytes) -> Iterator[tuple[Span, bool]]:
    """Yield what the rule's check makes of its candidates, and after too many in one text, all the rest of it."""
    end = checked = found = 0
    for start, stop in spans:
        if start >= end:
            end, checked, found = _end_of_text(data, start), 0, 0
        if found > MAX_FINDINGS_PER_TEXT:
            continue
        checked += 1
        candidate = Candidate(data, start, stop)
        for span in rule.check(candidate) if checked <= rule.most_checks else (candidate.span,):
            found += 1
            if found > MAX_FINDINGS_PER_TEXT:
                yield (span[0], end), True
                break
            yield span, False


def _end_of_text(data: bytes, start: int) -> int:
    separator = data.find(SEPARATOR, start)
    return len(data) if separator < 0 else separator
