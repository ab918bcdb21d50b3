"""The kinds of policy and the shapes of their configurations.

A kind is a frozen dataclass and a parser from JSON; to add one, add both here and tell `evaluate` what it decides.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeVar

MAX_COUNT = 10**12
MAX_LIMIT_USD = 10**9
MAX_SPAN_HOURS = 366 * 24
MAX_ALERTS = 20
MAX_ALERT_PERCENT = 1000
MAX_PATTERNS = 1000
MAX_PATTERN_CHARACTERS = 256
NANO = 10**9


class Kind(StrEnum):
    """What a policy rules."""

    RATE_LIMIT = "rate_limit"
    COST_CAP = "cost_cap"
    MODEL_RESTRICTION = "model_restriction"
    GUARDRAIL = "guardrail"

    @property
    def label(self) -> str:
        """The kind for people."""
        return self.value.replace("_", " ").capitalize()


class ConfigError(ValueError):
    """A configuration that is not of its kind. ``field`` names the offending field, ``""`` for the whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Per(StrEnum):
    """The window of a cost cap, in UTC; a week begins on Monday. ``rolling`` is any span of so many hours."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ROLLING = "rolling"
    TOTAL = "total"


class Fit(StrEnum):
    """What happens to a request whose worst case is above what is left."""

    REFUSE = "refuse"
    CLAMP = "clamp"


class FindingAction(StrEnum):
    """What a guardrail does about a finding, mildest first."""

    FLAG = "flag"
    REDACT = "redact"
    BLOCK = "block"


class Direction(StrEnum):
    """Which texts a guardrail reads."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


DETECTORS = ("email", "phone", "ssn", "credit_card", "ip_address", "secret", "injection")
WINDOW_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class ModelRestriction:
    """Patterns of model names; ``*`` stands for any text, ``?`` for one character. Deny wins."""

    allow: tuple[re.Pattern[str], ...]
    deny: tuple[re.Pattern[str], ...]


@dataclass(frozen=True, slots=True)
class RateLimitRule:
    """At most ``requests`` and ``tokens`` in any window of ``window_seconds``, and ``concurrent`` at once."""

    requests: int | None
    tokens: int | None
    concurrent: int | None
    window_seconds: int | None


@dataclass(frozen=True, slots=True)
class CostCap:
    """At most ``limit_nano_usd`` in each window; not ``hard``: recorded and shown, never refused.

    ``span_hours`` is given for a rolling window alone. Crossing a percent in ``alert_at`` is recorded.
    """

    limit_nano_usd: int
    per: Per
    hard: bool
    fit: Fit
    span_hours: int | None = None
    alert_at: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What to do about each detector's findings, in which texts."""

    detectors: Mapping[str, FindingAction]
    direction: Direction


Rule = ModelRestriction | RateLimitRule | CostCap | Guardrail


def parse_config(kind: str, config: Any) -> Rule:
    """Read a policy's configuration. Raises `ConfigError`, naming the field."""
    if kind not in _PARSERS:
        raise ConfigError("", f"Unknown kind of policy: {kind!r}.")
    if not isinstance(config, dict):
        raise ConfigError("", "The configuration must be an object.")
    fields, parse = _PARSERS[Kind(kind)]
    for name in config:
        if name not in fields:
            raise ConfigError(str(name), f"Unknown field; a {kind} has {', '.join(fields)}.")
    return parse(config)


def _model_restriction(config: Mapping[str, Any]) -> ModelRestriction:
    if "allow" not in config and "deny" not in config:
        raise ConfigError("allow", "Give allow, deny or both.")
    return ModelRestriction(_patterns(config, "allow"), _patterns(config, "deny"))


def _patterns(config: Mapping[str, Any], field: str) -> tuple[re.Pattern[str], ...]:
    globs = config.get(field, [])
    if not isinstance(globs, list) or len(globs) > MAX_PATTERNS:
        raise ConfigError(field, f"Must be a list of at most {MAX_PATTERNS} model patterns.")
    if field in config and field == "allow" and not globs:
        raise ConfigError(field, "An empty list allows nothing: name a model, or leave the field out.")
    for glob in globs:
        if not isinstance(glob, str) or not glob.strip() or len(glob) > MAX_PATTERN_CHARACTERS:
            raise ConfigError(field, f"Each pattern must be a text of 1 to {MAX_PATTERN_CHARACTERS} characters.")
    return tuple(re.compile(fnmatch.translate(glob)) for glob in globs)


def _rate_limit(config: Mapping[str, Any]) -> RateLimitRule:
    requests, tokens, concurrent = (_count(config, field) for field in ("requests", "tokens", "concurrent"))
    if requests is tokens is concurrent is None:
        raise ConfigError("requests", "Give requests, tokens or concurrent.")
    per = config.get("per")
    if per is None and (requests is not None or tokens is not None):
        raise ConfigError("per", "Say per which window: second, minute, hour or day.")
    if per is not None and (not isinstance(per, str) or per not in WINDOW_SECONDS):
        raise ConfigError("per", "Must be second, minute, hour or day.")
    return RateLimitRule(requests, tokens, concurrent, WINDOW_SECONDS[per] if per else None)


def _count(config: Mapping[str, Any], field: str) -> int | None:
    value = config.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
        raise ConfigError(field, f"Must be a whole number from 1 to {MAX_COUNT}.")
    return value


def _cost_cap(config: Mapping[str, Any]) -> CostCap:
    hard = config.get("hard", True)
    if not isinstance(hard, bool):
        raise ConfigError("hard", "Must be true or false.")
    per = _choice(config, "per", Per)
    fit = _choice(config, "fit", Fit, Fit.REFUSE)
    return CostCap(_limit(config), per, hard, fit, _span_hours(config, per), _alert_at(config))


def _span_hours(config: Mapping[str, Any], per: Per) -> int | None:
    if per is not Per.ROLLING:
        if config.get("span_hours") is not None:
            raise ConfigError("span_hours", "Only a rolling window has a span: leave it out.")
        return None
    hours = config.get("span_hours")
    if type(hours) is not int or not 1 <= hours <= MAX_SPAN_HOURS:
        raise ConfigError("span_hours", f"Must be a whole number of hours from 1 to {MAX_SPAN_HOURS}.")
    return hours


def _alert_at(config: Mapping[str, Any]) -> tuple[int, ...]:
    percents = config.get("alert_at", [])
    if not isinstance(percents, list) or len(percents) > MAX_ALERTS or not all(map(_is_percent, percents)):
        message = f"Must be a list of at most {MAX_ALERTS} whole percents from 1 to {MAX_ALERT_PERCENT}."
        raise ConfigError("alert_at", message)
    return tuple(sorted(set(percents)))


def _is_percent(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_ALERT_PERCENT


def _limit(config: Mapping[str, Any]) -> int:
    usd = _decimal(config.get("limit_usd"))
    if usd is None or not 0 <= usd <= MAX_LIMIT_USD or usd * NANO != int(usd * NANO):
        message = f'Must be an amount such as "12.50", from 0 to {MAX_LIMIT_USD}, with at most nine decimals.'
        raise ConfigError("limit_usd", message)
    return int(usd * NANO)


def _decimal(value: Any) -> Decimal | None:
    if not isinstance(value, str | int) or isinstance(value, bool) or len(str(value)) > 40:
        return None
    try:
        usd = Decimal(value)
    except InvalidOperation:
        return None
    return usd if usd.is_finite() else None


def _guardrail(config: Mapping[str, Any]) -> Guardrail:
    detectors = config.get("detectors")
    if not isinstance(detectors, dict) or not detectors:
        raise ConfigError("detectors", "Name at least one detector and what it does: block, redact or flag.")
    for name in detectors:
        if name not in DETECTORS:
            raise ConfigError("detectors", f"Unknown detector; there are {', '.join(DETECTORS)}.")
    actions = {name: _choice(detectors, name, FindingAction) for name in detectors}
    return Guardrail(actions, _choice(config, "direction", Direction, Direction.BOTH))


E = TypeVar("E", bound=StrEnum)


def _choice(config: Mapping[str, Any], field: str, choices: type[E], default: E | None = None) -> E:
    value = config.get(field, default)
    if not isinstance(value, str) or value not in choices.__members__.values():
        raise ConfigError(field, f"Must be one of {', '.join(choices)}.")
    return choices(value)


_PARSERS: dict[Kind, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Rule]]] = {
    Kind.RATE_LIMIT: (("requests", "tokens", "per", "concurrent"), _rate_limit),
    Kind.COST_CAP: (("limit_usd", "per", "span_hours", "hard", "fit", "alert_at"), _cost_cap),
    Kind.MODEL_RESTRICTION: (("allow", "deny"), _model_restriction),
    Kind.GUARDRAIL: (("detectors", "direction"), _guardrail),
}
