"""The database of all rules: one linear pass of Hyperscan says which of them occur, RE2 says where."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import hyperscan
import re2

from apps.policies.guardrails.decoding import ENCODED_HINT
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules import contact, credentials, identity, injection
from apps.policies.guardrails.rules.rule import Rule

RULES: tuple[Rule, ...] = (*contact.RULES, *identity.RULES, *credentials.RULES, *injection.RULES)
_ENCODED = len(RULES)


@dataclass(frozen=True, slots=True)
class Hits:
    """What occurs in a text: rules, and whether something in it may be encoded."""

    rules: tuple[Rule, ...]
    encoded: bool


class Database:
    """All patterns, compiled. One serves all threads."""

    def __init__(self) -> None:
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        expressions = [(rule.hint or rule.pattern).encode("ascii") for rule in RULES] + [ENCODED_HINT.encode("ascii")]
        self._database.compile(
            expressions=expressions,
            ids=list(range(len(expressions))),
            elements=len(expressions),
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(expressions),
        )
        self._patterns = {rule.name: re2.compile(rule.pattern.encode("ascii"), _latin_1()) for rule in RULES}
        self._local = threading.local()

    def hits(self, data: bytes) -> Hits:
        """Scan ``data`` once."""
        numbers: list[int] = []

        def note(number: int, *_: object) -> None:
            numbers.append(number)

        self._database.scan(data, match_event_handler=note, scratch=self._scratch())
        rules = tuple(RULES[number] for number in sorted(numbers) if number != _ENCODED)
        return Hits(rules, _ENCODED in numbers)

    def spans(self, rule: Rule, data: bytes) -> Iterator[Span]:
        """Yield where the rule's candidates stand, in order."""
        pattern = self._patterns[rule.name]
        group = min(pattern.groups, 1)
        for match in pattern.finditer(data):
            yield match.span(group)

    def _scratch(self) -> "hyperscan.Scratch":
        # Hyperscan writes into its scratch space: no two threads may share one.
        scratch: hyperscan.Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        return scratch


def _latin_1() -> "re2.Options":
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return options


_lock = threading.Lock()
_compiled: list[Database] = []


def database() -> Database:
    """Return the process's database; the first call compiles it (some hundred milliseconds), the others wait."""
    if not _compiled:
        with _lock:
            if not _compiled:
                _compiled.append(Database())
    return _compiled[0]
