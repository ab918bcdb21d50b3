"""US social security numbers and payment card numbers."""

import re
from collections.abc import Iterable, Iterator

import re2

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules.rule import Candidate, Rule

_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1
_WORDS = r"(?i)\b(?:ssns?|social[\s_-]?sec(?:urity)?|soc[\s.]{0,2}sec|tax[\s_-]?id)"
_SSN_WORD = re2.compile(_WORDS.encode(), _OPTIONS)
_WINDOW = 40


def _is_ssn(value: bytes) -> bool:
    """Apply the rules of issue (SSA, POMS RM 10201.035): no area 000, 666 or 9xx, no group 00, no serial 0000."""
    digits = value.translate(None, b"-. ")
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in (b"000", b"666") and area < b"900" and group != b"00" and serial != b"0000"


def _stands_alone(candidate: Candidate) -> bool:
    # The groups of a longer number go on with the separator that this one has.
    joint = candidate.data[candidate.start + 3 : candidate.start + 4]
    before, after = candidate.before(2), candidate.after(2)
    return not (
        before[-1:].isalnum()
        or before[-1:] == b"_"
        or (before[:1].isdigit() and before[1:] == joint)
        or after[:1].isalnum()
        or after[:1] == b"_"
        or (after[:1] == joint and after[1:].isdigit())
    )


def _grouped_ssn(candidate: Candidate) -> Iterable[Span]:
    return (candidate.span,) if _stands_alone(candidate) and _is_ssn(candidate.value) else ()


def _named_ssn(candidate: Candidate) -> Iterable[Span]:
    if _SSN_WORD.search(candidate.before(_WINDOW).replace(b"[SSN]", b"     ")) is None:
        return ()
    alone = not candidate.before(1).isalnum() and not candidate.after(1).isalnum()
    return (candidate.span,) if alone and _is_ssn(candidate.value) else ()


_MAESTRO = frozenset({5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763})
_GROUP = re.compile(rb"\d+")  # one character class: linear
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))
_SHORTEST_CARD, _LONGEST_CARD = 13, 19
_SHORTEST_GROUP = 3
_MOST_TRIED = 20_000  # in one run of digits; what is left of the run then counts as a card


def is_luhn(digits: bytes) -> bool:
    """Whether the last of ``digits`` (ASCII) is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    return (sum(digits[-1::-2].translate(_PLAIN)) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def is_issued(digits: bytes) -> bool:
    """Whether a card network issues numbers of this length that begin like this (the networks' published ranges)."""
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    return (
        (digits[:1] == b"4" and length in (13, 16, 19))  # Visa
        or (length == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))  # Mastercard
        or (length == 15 and two in (34, 37))  # American Express
        or (length >= 16 and (four == 6011 or 644 <= three <= 649 or two in (62, 65)))  # Discover, UnionPay
        or (length >= 16 and 3528 <= four <= 3589)  # JCB
        or (length == 14 and (300 <= three <= 305 or two in (36, 38, 39)))  # Diners Club
        or (length >= 16 and four in _MAESTRO)  # Maestro
    )


def _cards(candidate: Candidate) -> Iterator[Span]:
    groups = [match.span() for match in _GROUP.finditer(candidate.value)]
    if _joined(candidate.before(1)):
        groups = groups[1:]
    if groups and (candidate.after(1).isalnum() or _decimal(candidate.after(2))):
        groups = groups[:-1]
    if all(end - start == 1 for start, end in groups):
        yield from _spaced_card(candidate, groups)
    else:
        yield from _grouped_cards(candidate, groups)


def _joined(neighbour: bytes) -> bool:
    return neighbour.isalnum() or neighbour == b"."


def _decimal(neighbours: bytes) -> bool:
    return neighbours[:1] == b"." and neighbours[1:].isdigit()


def _spaced_card(candidate: Candidate, groups: list[Span]) -> Iterator[Span]:
    if not _SHORTEST_CARD <= len(groups) <= _LONGEST_CARD:
        return
    digits = b"".join(candidate.value[start:end] for start, end in groups)
    if is_issued(digits) and is_luhn(digits):
        yield candidate.part(groups[0][0], groups[-1][1]).span


def _grouped_cards(candidate: Candidate, groups: list[Span]) -> Iterator[Span]:
    value = candidate.value
    first = tried = 0
    while first < len(groups):
        start, end = groups[first]
        last = None
        if end - start >= _SHORTEST_GROUP and value[start] in b"23456":
            last = _end_of_card(value, groups, first)
            tried += 1
        if tried > _MOST_TRIED:
            yield candidate.part(start, groups[-1][1]).span
            return
        if last is not None:
            yield candidate.part(start, groups[last][1]).span
        first = first + 1 if last is None else last + 1


def _end_of_card(value: bytes, groups: list[Span], first: int) -> int | None:
    digits, found = b"", None
    joint = value[groups[first][1] : groups[first][1] + 1]
    for number in range(first, min(first + _LONGEST_CARD, len(groups))):
        start, end = groups[number]
        other_joint = number > first and value[start - 1 : start] != joint
        if other_joint or len(digits) + end - start > _LONGEST_CARD:
            break
        digits += value[start:end]
        if len(digits) >= _SHORTEST_CARD and is_issued(digits) and is_luhn(digits):
            found = number
    return found


RULES = (
    Rule(Detector.SSN, "ssn", r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}", _grouped_ssn),
    Rule(Detector.SSN, "ssn_with_keyword", r"\d{3}[ .-]?\d{2}[ .-]?\d{4}", _named_ssn, hint=_WORDS),
    Rule(Detector.CREDIT_CARD, "credit_card", r"\d(?:[ -]?\d){12,}", _cards, hint=r"\d(?:[ -]?\d){12}"),
)
