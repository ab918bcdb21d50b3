"""A policy as the engine sees it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from apps.policies.engine.kinds import ALWAYS, ConfigError, Kind, Rule, Terms, parse_config, parse_terms


class Mode(StrEnum):
    """``enforce`` refuses, ``shadow`` records what it would have refused, ``off`` does nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class Level(StrEnum):
    """The kind of scope a policy stands on, widest first."""

    PLATFORM = "platform"
    ORGANIZATION = "organization"
    APPLICATION = "application"
    USER = "user"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Broken:
    """The rule of a policy that cannot be read as it is stored: it denies, and says so."""

    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One published version of a policy, with its configuration read."""

    id: UUID
    version: int
    name: str
    kind: str
    mode: Mode
    level: Level
    scope_id: UUID | None
    organization_id: UUID | None
    rule: Rule | Broken
    terms: Terms = ALWAYS

    @property
    def enforced(self) -> bool:
        """Whether it refuses, and does not only record."""
        return self.mode is Mode.ENFORCE

    def stamp(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {
            "id": str(self.id),
            "version": self.version,
            "name": self.name,
            "kind": self.kind,
            "mode": self.mode.value,
            "level": self.level.value,
        }


def read_terms(models: Any, valid_from: datetime | None, valid_until: datetime | None) -> Terms | Broken:
    """Read stored models and dates; those that cannot be become `Broken`, which denies every model at any time."""
    try:
        return parse_terms(models, valid_from, valid_until)
    except ConfigError as error:
        return Broken(f"{error.field}: {error}")


def read_rule(kind: str, config: Any) -> Rule | Broken:
    """Read a stored configuration; one that is not of its kind becomes `Broken`, which denies."""
    try:
        return parse_config(Kind(kind), config)
    except ConfigError as error:
        return Broken(f"{error.field}: {error}" if error.field else str(error))
    except ValueError:
        return Broken(f"Unknown kind of policy: {kind!r}.")
