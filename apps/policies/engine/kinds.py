"""The kinds of policy and the shapes of their configurations.

A kind is a frozen dataclass and a parser from JSON; to add one, add both here and tell `evaluate` what it decides.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
MAX_REQUEST_TOKENS = 10**9
NANO = 10**9


class Kind(StrEnum):
    """What a policy rules."""

    RATE_LIMIT = "rate_limit"
    COST_CAP = "cost_cap"
    MODEL_RESTRICTION = "model_restriction"
    GUARDRAIL = "guardrail"
    REQUEST_LIMITS = "request_limits"

    @property
    def label(self) -> str:
        """The kind for people."""
        return self.value.replace("_", " ").capitalize()


class ConfigError(ValueError):
    """A configuration or terms that cannot be. ``field`` names the offending field, ``""`` for the whole."""

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


class Feature(StrEnum):
    """What a request may make use of beside text: tools, images, an answer in pieces, more than one choice."""

    TOOLS = "tools"
    IMAGES = "images"
    STREAMING = "streaming"
    N = "n"


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


class Unscannable(StrEnum):
    """What happens to content that is no text (a picture, a file, a sound) where texts must be read."""

    BLOCK = "block"
    ALLOW = "allow"


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
    unscannable: Unscannable = Unscannable.BLOCK


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most tokens of one request, its output over all choices, and the features it must not use."""

    max_input_tokens: int | None
    max_output_tokens: int | None
    forbidden: frozenset[Feature]


Rule = ModelRestriction | RateLimitRule | CostCap | Guardrail | RequestLimits


@dataclass(frozen=True, slots=True)
class Terms:
    """For which models a policy speaks (none named: for all), and from when (included) until when (excluded), UTC."""

    models: tuple[re.Pattern[str], ...] = ()
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    def cover(self, model: str, moment: datetime) -> bool:
        """Whether the policy speaks for a model at a moment."""
        if self.valid_from is not None and moment < self.valid_from:
            return False
        if self.valid_until is not None and moment >= self.valid_until:
            return False
        return not self.models or any(pattern.match(model) for pattern in self.models)


ALWAYS = Terms()


def parse_terms(models: Any, valid_from: datetime | None, valid_until: datetime | None) -> Terms:
    """Read a policy's models and dates. Raises `ConfigError`, naming the field."""
    for field, moment in (("valid_from", valid_from), ("valid_until", valid_until)):
        if moment is not None and moment.tzinfo is None:
            raise ConfigError(field, "Must say its time zone.")
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        raise ConfigError("valid_until", "Must be after valid_from.")
    return Terms(_patterns({"models": models}, "models"), valid_from, valid_until)


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
        if not glob.isprintable() or glob != glob.strip():
            raise ConfigError(field, "A pattern must not hold control characters, nor begin or end with a space.")
    return tuple(re.compile(fnmatch.translate(glob)) for glob in globs)


def is_exact(glob: str) -> bool:
    """Whether a pattern stands for one name alone."""
    return not any(character in glob for character in "*?[")


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


def _count(config: Mapping[str, Any], field: str, most: int = MAX_COUNT) -> int | None:
    value = config.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(field, f"Must be a whole number from 1 to {most}.")
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
    return Guardrail(
        actions,
        _choice(config, "direction", Direction, Direction.BOTH),
        _choice(config, "unscannable", Unscannable, Unscannable.BLOCK),
    )


def _request_limits(config: Mapping[str, Any]) -> RequestLimits:
    most_input, most_output = (
        _count(config, field, MAX_REQUEST_TOKENS) for field in ("max_input_tokens", "max_output_tokens")
    )
    features = config.get("features", {})
    if not isinstance(features, dict):
        raise ConfigError("features", "Must be an object that says true or false of features.")
    for name, allowed in features.items():
        if name not in Feature.__members__.values():
            raise ConfigError("features", f"Unknown feature; there are {', '.join(Feature)}.")
        if not isinstance(allowed, bool):
            raise ConfigError(name, "Must be true (allowed) or false.")
    forbidden = frozenset(Feature(name) for name, allowed in features.items() if not allowed)
    if most_input is most_output is None and not forbidden:
        raise ConfigError("max_input_tokens", "Limit something: input tokens, output tokens or a feature.")
    return RequestLimits(most_input, most_output, forbidden)


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
    Kind.GUARDRAIL: (("detectors", "direction", "unscannable"), _guardrail),
    Kind.REQUEST_LIMITS: (("max_input_tokens", "max_output_tokens", "features"), _request_limits),
}
