"""A first set of policies, in the words of those who want them. Data: one entry is one policy to choose and adjust.

A template's `questions` are what may be adjusted; `config` makes the policy's configuration of the answers. What it
says of itself afterwards is `describe`'s, as for every policy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from apps.policies.engine.kinds import DETECTORS, MAX_COUNT, MAX_LIMIT_USD, MAX_REQUEST_TOKENS, Kind

Answers = Mapping[str, Any]


class Answer(StrEnum):
    """What is answered to a question."""

    COUNT = "count"
    USD = "usd"
    CHOICE = "choice"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Question:
    """Something to adjust. ``name`` is the configuration's field too, where a refusal of it is shown."""

    name: str
    label: str
    answer: Answer
    suggested: Any
    most: int = MAX_COUNT
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A policy to choose, and its ``name`` once it is one.

    ``each_key``: one policy for every key there is, where the count is to be a key's own.
    """

    key: str
    name: str
    title: str
    why: str
    kind: Kind
    questions: tuple[Question, ...]
    config: Callable[[Answers], dict[str, Any]]
    chosen: bool = False
    each_key: bool = False


CHEAP = (
    "gpt-4o-mini*",
    "gpt-4.1-mini*",
    "gpt-4.1-nano*",
    "gpt-5-mini*",
    "gpt-5-nano*",
    "claude-*haiku*",
    "gemini-*-flash*",
    "mistral-small*",
    "sim-*",
)
ROUTED = "routed"
"""Stands for the models that the organization has routes to, or else for every model."""
PERSONAL = ("email", "phone", "ssn", "credit_card", "ip_address")
_PERIODS = (("day", "a day"), ("week", "a week"), ("month", "a month"))
_SPANS = (("second", "a second"), ("minute", "a minute"), ("hour", "an hour"), ("day", "a day"))
_ACTIONS = (("block", "Refuse the request"), ("redact", "Take it out and go on"), ("flag", "Only note it"))


def _models(answers: Answers) -> dict[str, Any]:
    return {"allow": list(answers["allow"])}


def _budget(answers: Answers) -> dict[str, Any]:
    limit: Decimal = answers["limit_usd"]
    return {"limit_usd": f"{limit:f}", "per": answers["per"], "hard": True, "fit": "refuse", "alert_at": [80, 100]}


def _rate(answers: Answers) -> dict[str, Any]:
    return {"requests": answers["requests"], "per": answers["per"]}


def _guard(*detectors: str) -> Callable[[Answers], dict[str, Any]]:
    def config(answers: Answers) -> dict[str, Any]:
        # Pictures cannot be read: who wants them refused as well says so on the policy's own page.
        actions = dict.fromkeys(detectors, answers["detectors"])
        return {"detectors": actions, "direction": "input", "unscannable": "allow"}

    return config


def _short_answers(answers: Answers) -> dict[str, Any]:
    return {"max_output_tokens": answers["max_output_tokens"]}


TEMPLATES: tuple[Template, ...] = (
    Template(
        "models",
        "Chosen models",
        "Only the models we chose",
        "Without a policy that allows a model, every request is refused.",
        Kind.MODEL_RESTRICTION,
        (Question("allow", "Models, one a line; * stands for any text", Answer.MODELS, ROUTED),),
        _models,
        chosen=True,
    ),
    Template(
        "cheap",
        "Cheap models",
        "Cheap models only",
        "The small models of each vendor. Together with the list above, both are allowed.",
        Kind.MODEL_RESTRICTION,
        (Question("allow", "Models, one a line; * stands for any text", Answer.MODELS, CHEAP),),
        _models,
    ),
    Template(
        "budget",
        "Team budget",
        "A budget for the team",
        "What a request could cost is set aside before it is sent, so that the budget holds.",
        Kind.COST_CAP,
        (
            Question("limit_usd", "US dollars", Answer.USD, Decimal(50), most=MAX_LIMIT_USD),
            Question("per", "In", Answer.CHOICE, "month", choices=_PERIODS),
        ),
        _budget,
        chosen=True,
    ),
    Template(
        "personal",
        "No personal data to providers",
        "No personal data to providers",
        "E-mail addresses, phone numbers, social security and card numbers, IP addresses.",
        Kind.GUARDRAIL,
        (Question("detectors", "Where there is some", Answer.CHOICE, "redact", choices=_ACTIONS),),
        _guard(*PERSONAL),
    ),
    Template(
        "secrets",
        "No secrets to providers",
        "No secrets to providers",
        "API keys, tokens and private keys that somebody pasted by mistake.",
        Kind.GUARDRAIL,
        (Question("detectors", "Where there is one", Answer.CHOICE, "block", choices=_ACTIONS),),
        _guard("secret"),
        chosen=True,
    ),
    Template(
        "injection",
        "No prompt injections",
        "No prompt injections",
        "Texts that try to talk a model out of its instructions. Note them first, to see how often that is wrong.",
        Kind.GUARDRAIL,
        (Question("detectors", "Where there is one", Answer.CHOICE, "flag", choices=_ACTIONS),),
        _guard("injection"),
    ),
    Template(
        "key_rate",
        "Requests per key",
        "A limit for each key",
        "One policy for each key that there is now. A later key needs its own.",
        Kind.RATE_LIMIT,
        (
            Question("requests", "Requests", Answer.COUNT, 60),
            Question("per", "In", Answer.CHOICE, "minute", choices=_SPANS),
        ),
        _rate,
        each_key=True,
    ),
    Template(
        "rate",
        "Requests of all",
        "A limit for everyone together",
        "So that one runaway program does not use everything up.",
        Kind.RATE_LIMIT,
        (
            Question("requests", "Requests", Answer.COUNT, 600),
            Question("per", "In", Answer.CHOICE, "minute", choices=_SPANS),
        ),
        _rate,
    ),
    Template(
        "short",
        "Longest answer",
        "No endless answers",
        "A request that names no limit of its own gets this one.",
        Kind.REQUEST_LIMITS,
        (Question("max_output_tokens", "Most tokens of an answer", Answer.COUNT, 2000, most=MAX_REQUEST_TOKENS),),
        _short_answers,
    ),
)

assert set(PERSONAL) <= set(DETECTORS)
