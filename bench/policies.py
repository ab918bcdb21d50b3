"""``python -m bench.policies``: what a decision costs where an organization has many policies and few of them apply.

Evaluates, without any cache, for one caller of an organization with 10 policies, all of which apply, and of one with
1,000, of which the same 10 do; the others stand on other applications, users and keys. Prints both and their quotient.
The two are measured in turns, and each figure is the least of its rounds: what the machine was busy with adds, and
never takes away.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

from apps.policies.engine.evaluate import Facts, PolicyIndex, evaluate
from apps.policies.engine.policy import Level, Mode, Policy, read_rule

APPLYING, ALL = 10, 1000
ROUNDS, DECISIONS = 60, 400
ORGANIZATION, APPLICATION, USER, KEY = (uuid4() for _ in range(4))
SCOPES: list[tuple[Level, UUID | None]] = [
    (Level.PLATFORM, None),
    (Level.ORGANIZATION, ORGANIZATION),
    (Level.APPLICATION, APPLICATION),
    (Level.USER, USER),
    (Level.KEY, KEY),
]
RULES = [
    ("model_restriction", {"allow": ["gpt-*", "claude-*"], "deny": ["*-preview"]}),
    ("rate_limit", {"requests": 1000, "tokens": 10**6, "per": "minute", "concurrent": 50}),
    ("cost_cap", {"limit_usd": "1000", "per": "month", "fit": "clamp"}),
    ("request_limits", {"max_input_tokens": 100_000, "max_output_tokens": 4000}),
    ("guardrail", {"detectors": {"email": "redact", "secret": "block"}, "direction": "both"}),
]
FACTS = Facts(ORGANIZATION, APPLICATION, USER, KEY, "gpt-4o", datetime.now(UTC))


def main() -> None:
    few = list(_applying())
    many = few + list(_of_others(ALL - APPLYING))
    indexes = {len(few): PolicyIndex(few), len(many): PolicyIndex(many)}
    least = dict.fromkeys(indexes, float("inf"))
    for _ in range(ROUNDS):
        for size, index in indexes.items():
            least[size] = min(least[size], _microseconds(index))
    for size, microseconds in least.items():
        applied = len(evaluate(FACTS, indexes[size]).applied)
        print(f"{size:>5} policies, {applied} apply: {microseconds:.2f} µs a decision")
    print(f"quotient: {least[ALL] / least[APPLYING]:.3f}")


def _microseconds(index: PolicyIndex) -> float:
    began = time.process_time()
    for _ in range(DECISIONS):
        evaluate(FACTS, index)
    return (time.process_time() - began) / DECISIONS * 1e6


def _applying() -> Iterator[Policy]:
    for number in range(APPLYING):
        yield _policy(number, *SCOPES[number % len(SCOPES)])


def _of_others(count: int) -> Iterator[Policy]:
    narrow = (Level.APPLICATION, Level.USER, Level.KEY)
    for number in range(count):
        yield _policy(number, narrow[number % len(narrow)], uuid4())


def _policy(number: int, level: Level, scope_id: UUID | None) -> Policy:
    kind, config = RULES[number % len(RULES)]
    rule = read_rule(kind, config)
    return Policy(uuid4(), 1, f"policy {number}", kind, Mode.ENFORCE, level, scope_id, ORGANIZATION, rule)


if __name__ == "__main__":
    main()
