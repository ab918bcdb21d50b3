"""Limits of a single request: what it asks for against what its policies allow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.policies.engine.evaluate import FORBIDDEN, Reason
from apps.policies.engine.kinds import Feature, RequestLimits
from apps.policies.engine.policy import Policy

Limits = Sequence[tuple[Policy, RequestLimits]]

_USES = {
    Feature.TOOLS: "tools",
    Feature.IMAGES: "images",
    Feature.STREAMING: "a streamed answer",
    Feature.N: "more than one choice (n)",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    ``input_tokens`` bounds its input from above, ``None`` where nothing does. ``output_tokens`` is what it lets the
    answer have over all its ``choices``, ``None`` if it does not say.
    """

    input_tokens: int | None
    output_tokens: int | None
    choices: int
    features: frozenset[Feature]

    def as_json(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "choices": self.choices,
            "features": sorted(self.features),
        }


def asked_from_json(said: dict[str, Any]) -> Asked:
    """Read what `Asked.as_json` wrote."""
    features = frozenset(Feature(name) for name in said["features"])
    return Asked(said["input_tokens"], said["output_tokens"], said["choices"], features)


def request_reasons(limits: Limits, asked: Asked) -> tuple[Reason, ...]:
    """Return why a request is beyond its limits, or in shadow mode would be; nothing if it is within them."""
    return tuple(
        Reason(FORBIDDEN, f"Policy '{policy.name}' {said}", policy, policy.enforced)
        for policy, rule in limits
        for said in _against(rule, asked)
    )


def output_allowance(limits: Limits, asked: Asked) -> int | None:
    """Return the output tokens, over all choices, that a request gets which did not say how many it wants."""
    if asked.output_tokens is not None:
        return None
    most = [rule.max_output_tokens for policy, rule in limits if policy.enforced and rule.max_output_tokens is not None]
    return min(most, default=None)


def _against(rule: RequestLimits, asked: Asked) -> list[str]:
    said = [f"does not allow {_USES[feature]}." for feature in Feature if feature in rule.forbidden & asked.features]
    most, bound = rule.max_input_tokens, asked.input_tokens
    if most is not None and bound is None:
        said.append(f"allows {most} input tokens, and those of this request cannot be bounded.")
    elif most is not None and bound is not None and bound > most:
        said.append(f"allows {most} input tokens, and this request may have {bound}.")
    most = rule.max_output_tokens
    # One that does not say how many it wants gets the limit; each choice needs a token at least.
    wanted = asked.choices if asked.output_tokens is None else asked.output_tokens
    if most is not None and wanted > most:
        said.append(f"allows {most} output tokens over all choices, and this request asks for {wanted}.")
    return said
