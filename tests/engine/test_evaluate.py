"""What the engine decides. Every test is a sentence about policies."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from apps.policies.engine.evaluate import Decision, Facts, PolicyIndex, evaluate
from apps.policies.engine.kinds import parse_terms
from apps.policies.engine.policy import Level, Mode, Policy, read_rule

ORGANIZATION, APPLICATION, USER, KEY = (uuid4() for _ in range(4))
SCOPES: dict[Level, UUID | None] = {
    Level.PLATFORM: None,
    Level.ORGANIZATION: ORGANIZATION,
    Level.APPLICATION: APPLICATION,
    Level.USER: USER,
    Level.KEY: KEY,
}


def policy(config: Any, level: Level = Level.ORGANIZATION, kind: str = "model_restriction", **fields: Any) -> Policy:
    given: dict[str, Any] = {"mode": Mode.ENFORCE, "scope_id": SCOPES[level], "name": "P", **fields}
    return Policy(
        id=uuid4(),
        version=1,
        kind=kind,
        level=level,
        organization_id=ORGANIZATION,
        rule=read_rule(kind, config),
        **given,
    )


NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def decide(*policies: Policy, model: str = "sim-echo", moment: datetime = NOW) -> Decision:
    return evaluate(Facts(ORGANIZATION, APPLICATION, USER, KEY, model, moment), PolicyIndex(policies))


def refused(*policies: Policy, model: str = "sim-echo") -> str | None:
    refusal = decide(*policies, model=model).refusal
    return refusal.code if refusal else None


def test_no_policy_denies() -> None:
    assert refused() == "MODEL_NOT_ALLOWED"


def test_an_allowed_model_is_allowed() -> None:
    assert refused(policy({"allow": ["sim-*"]})) is None


def test_a_model_that_no_pattern_covers_is_denied() -> None:
    assert refused(policy({"allow": ["sim-*"]}), model="gpt-4o") == "MODEL_NOT_ALLOWED"


def test_a_pattern_covers_the_whole_name_and_not_a_part() -> None:
    assert refused(policy({"allow": ["sim"]})) == "MODEL_NOT_ALLOWED"


def test_deny_wins_over_allow() -> None:
    assert refused(policy({"allow": ["*"], "deny": ["sim-echo"]})) == "MODEL_NOT_ALLOWED"


def test_deny_of_one_policy_wins_over_allow_of_another() -> None:
    assert refused(policy({"allow": ["*"]}), policy({"deny": ["sim-*"]})) == "MODEL_NOT_ALLOWED"


def test_a_deny_list_alone_allows_nothing() -> None:
    assert refused(policy({"deny": ["gpt-*"]})) == "MODEL_NOT_ALLOWED"


def test_allow_lists_of_one_scope_add_up() -> None:
    assert refused(policy({"allow": ["gpt-*"]}), policy({"allow": ["sim-*"]})) is None


@pytest.mark.parametrize("level", [Level.APPLICATION, Level.USER, Level.KEY])
def test_a_narrower_scope_can_only_tighten(level: Level) -> None:
    wide, narrow = policy({"allow": ["sim-*"]}), policy({"allow": ["gpt-*"]}, level)
    assert refused(wide, narrow, model="gpt-4o") == "MODEL_NOT_ALLOWED"
    assert refused(wide, narrow, model="sim-echo") == "MODEL_NOT_ALLOWED"


def test_the_platform_sets_a_ceiling() -> None:
    assert refused(policy({"allow": ["*"]}), policy({"allow": ["gpt-*"]}, Level.PLATFORM)) == "MODEL_NOT_ALLOWED"


@pytest.mark.parametrize("level", [Level.ORGANIZATION, Level.APPLICATION, Level.USER, Level.KEY])
def test_a_policy_on_another_scope_does_not_apply(level: Level) -> None:
    elsewhere = policy({"deny": ["*"]}, level, scope_id=uuid4())
    decision = decide(policy({"allow": ["sim-*"]}), elsewhere)
    assert decision.refusal is None
    assert elsewhere not in decision.applied


def test_a_caller_without_an_application_is_not_under_policies_of_no_application() -> None:
    facts = Facts(ORGANIZATION, None, None, None, "sim-echo", NOW)
    stray = policy({"deny": ["*"]}, Level.APPLICATION, scope_id=None)
    assert evaluate(facts, PolicyIndex([policy({"allow": ["*"]}), stray])).refusal is None


def test_a_policy_in_shadow_records_and_never_refuses() -> None:
    decision = decide(policy({"allow": ["sim-*"]}), policy({"deny": ["sim-*"]}, mode=Mode.SHADOW))
    assert decision.refusal is None
    assert [reason.enforced for reason in decision.reasons] == [False]


def test_an_allow_list_in_shadow_allows_nothing() -> None:
    assert refused(policy({"allow": ["sim-*"]}, mode=Mode.SHADOW)) == "MODEL_NOT_ALLOWED"


def test_a_policy_that_is_off_does_nothing() -> None:
    decision = decide(policy({"allow": ["sim-*"]}), policy({"deny": ["sim-*"]}, mode=Mode.OFF))
    assert decision.refusal is None
    assert len(decision.applied) == 1


@pytest.mark.parametrize("config", [None, [], "x", {"allow": "sim-*"}, {"allow": []}, {"permit": ["*"]}, {}])
def test_a_policy_that_cannot_be_read_denies_and_says_so(config: Any) -> None:
    refusal = decide(policy({"allow": ["*"]}), policy(config, name="Handmade")).refusal
    assert refusal is not None
    assert refusal.code == "FORBIDDEN"
    assert "Handmade" in refusal.message


def test_a_policy_of_an_unknown_kind_denies() -> None:
    assert refused(policy({"allow": ["*"]}), policy({}, kind="quota")) == "FORBIDDEN"


def test_a_reason_names_policy_and_version() -> None:
    refusal = decide(policy({"allow": ["*"]}), policy({"deny": ["sim-*"]}, name="No simulations")).refusal
    assert refusal is not None
    assert refusal.as_json() | {"policy_id": ""} == {
        "code": "MODEL_NOT_ALLOWED",
        "message": "Policy 'No simulations' denies the model 'sim-echo'.",
        "enforced": True,
        "policy": "No simulations",
        "policy_id": "",
        "version": 1,
    }


def test_rules_for_later_stages_come_with_their_policies() -> None:
    limit = policy({"requests": 5, "per": "minute"}, kind="rate_limit")
    cap = policy({"limit_usd": "1", "per": "day"}, kind="cost_cap")
    guardrail = policy({"detectors": {"email": "block"}}, kind="guardrail")
    decision = decide(policy({"allow": ["*"]}), limit, cap, guardrail)
    assert [p for p, _ in decision.rate_limits] == [limit]
    assert [p for p, _ in decision.cost_caps] == [cap]
    assert [p for p, _ in decision.guardrails] == [guardrail]


def test_a_policy_for_some_models_says_nothing_of_others() -> None:
    ban = policy({"deny": ["*"]}, terms=parse_terms(["gpt-*"], None, None))
    assert refused(policy({"allow": ["*"]}), ban, model="gpt-4o") == "MODEL_NOT_ALLOWED"
    decision = decide(policy({"allow": ["*"]}), ban, model="sim-echo")
    assert decision.refusal is None
    assert ban not in decision.applied


@pytest.mark.parametrize(
    ("since", "until", "holds"),
    [(0, None, True), (1, None, False), (None, 0, False), (None, 1, True), (-1, 1, True), (-2, -1, False)],
)
def test_a_policy_holds_from_its_first_moment_until_before_its_last(
    since: int | None, until: int | None, holds: bool
) -> None:
    first, last = (None if n is None else NOW + timedelta(microseconds=n) for n in (since, until))
    ban = policy({"deny": ["*"]}, terms=parse_terms([], first, last))
    assert (refused(policy({"allow": ["*"]}), ban) is not None) is holds


def test_nothing_changes_between_two_edges() -> None:
    first, last = NOW, NOW + timedelta(hours=1)
    index = PolicyIndex([policy({"deny": ["*"]}, terms=parse_terms([], first, last))])
    moments = [first - timedelta(days=9), first, last - timedelta(microseconds=1), last, last + timedelta(days=9)]
    steady = [index.steady_since(moment) for moment in moments]
    assert steady[1:] == [first, first, last, last]
    assert steady[0] < moments[0]
