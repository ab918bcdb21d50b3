"""Redaction: a text with every finding replaced by the name of its detector."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from apps.policies.guardrails.findings import SEVERITY, Detector, Finding

# Every repetition is possessive: each character is read once.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBER = r"-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![0-9.eE+-])"
_JSON = re.compile(rf"\s*+[\[{{](?:{_STRING}|{_NUMBER}|true|false|null|[\s,:\[\]{{}}])*+", re.DOTALL)
_VALUES = re.compile(rf"{_STRING}|{_NUMBER}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Hole:
    start: int
    end: int
    detector: Detector

    @property
    def placeholder(self) -> str:
        return f"[{self.detector.upper()}]"

    def within(self, start: int, end: int) -> "_Hole":
        return _Hole(max(self.start, start), min(self.end, end), self.detector)


def redact(text: str, findings: Iterable[Finding]) -> str:
    """Return ``text`` with every span replaced by ``[EMAIL]``, ``[SECRET]`` and so on; of overlapping ones by one.

    A JSON object or array in ``text`` (a tool call's arguments) stays JSON: only the contents of its strings and its
    numbers are replaced, a number by a string.
    """
    holes = _merged(findings)
    if holes and text.lstrip()[:1] in ("{", "[") and _JSON.fullmatch(text) is not None:
        return "".join(_redacted_json(text, holes))
    return "".join(_filled(text, 0, len(text), holes))


def _merged(findings: Iterable[Finding]) -> list[_Hole]:
    holes: list[_Hole] = []
    for finding in sorted(findings, key=lambda finding: finding.start):
        if holes and finding.start < holes[-1].end:
            last = holes[-1]
            detector = max(last.detector, finding.detector, key=SEVERITY.__getitem__)
            holes[-1] = _Hole(last.start, max(last.end, finding.end), detector)
        else:
            holes.append(_Hole(finding.start, finding.end, finding.detector))
    return holes


def _filled(text: str, start: int, end: int, holes: Iterable[_Hole]) -> Iterator[str]:
    for hole in holes:
        yield text[start : hole.start]
        yield hole.placeholder
        start = hole.end
    yield text[start:end]


def _redacted_json(text: str, holes: Sequence[_Hole]) -> Iterator[str]:
    done = first = 0
    for match in _VALUES.finditer(text):
        start, end = match.span()
        while first < len(holes) and holes[first].end <= start:
            first += 1
        inside = list(_holes_before(end, holes, first))
        if inside:
            yield text[done:start]
            yield from _redacted_value(text, start, end, inside)
            done = end
    yield text[done:]


def _holes_before(end: int, holes: Sequence[_Hole], first: int) -> Iterator[_Hole]:
    for number in range(first, len(holes)):
        if holes[number].start >= end:
            return
        yield holes[number]


def _redacted_value(text: str, start: int, end: int, holes: Sequence[_Hole]) -> Iterator[str]:
    if text[start] != '"':
        yield f'"{holes[0].placeholder}"'
        return
    contents = [hole.within(start + 1, end - 1) for hole in holes]
    yield '"'
    yield from _filled(text, start + 1, end - 1, [hole for hole in contents if hole.start < hole.end])
    yield '"'
