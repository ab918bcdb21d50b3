"""The one search of request records: what can be asked for, how it is read, and what it means in SQL.

The admin's page, the API, saved searches, exports and evidence packs all read their criteria here. `find` in
`apps.audit.finding` runs a search.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, models
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast
from django.db.models.lookups import Exact, IContains

from apps.audit import rollup_sql
from apps.audit.models import Status
from apps.audit.rollups import ID_SLACK
from apps.audit.uuid7 import first_id_at
from apps.audit.values import as_choice, as_moment, as_text, as_usd, as_uuid, without_odd_characters

SEARCHED = ("audit.requestrecord", "audit.requesttext")
"""What a role has to let see so that one may search."""
METADATA = "metadata."
MOST_LABELS = 8
"""Pairs of metadata that one search may name."""
MOST_WORDS = 16
MOST_STARS = 3
FAILED = "failed"
NO_POLICY = UUID(int=0)
OUTCOMES = (*Status.values, FAILED)
INDEXED_CHARACTERS = 100_000
"""Of each text so many characters are searched on PostgreSQL: an index's entry has a bound, a text has none."""
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

DOCUMENT = (
    f"to_tsvector('simple'::regconfig, left(prompt_redacted, {INDEXED_CHARACTERS}) || ' ' || "
    f"left(response_redacted, {INDEXED_CHARACTERS}))"
)
"""What the index on the texts holds; a search has to say exactly the same to use it."""
_SAID = f"{DOCUMENT} @@ websearch_to_tsquery('simple'::regconfig, %s)"
# A path in SQLite's JSON functions cannot name every key; the keys themselves can be compared.
_SQLITE_LABELLED = "EXISTS (SELECT 1 FROM json_each(audit_requestrecord.metadata) WHERE key = %s AND value = %s)"
_SQLITE_ENTRY = (
    "EXISTS (SELECT 1 FROM json_each(audit_requestrecord.{column}) AS entry WHERE"
    " CASE entry.type WHEN 'object' THEN json_extract(entry.value, '$.{name}') END = %s)"
)


class SearchRefused(Exception):
    """A search that cannot be meant: what is wrong, by the name of the criterion."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {said}" for name, said in problems.items()))
        self.problems = dict(problems)


@dataclass(frozen=True, slots=True)
class Criterion:
    """Something that can be asked for: how it is read, what it means in SQL, and what people read about it."""

    label: str
    read: Callable[[str], Any]
    narrow: Callable[[Any], Q]
    help: str = ""
    choices: tuple[str, ...] = ()
    is_rare: bool = False
    """Whether the admin's form shows it only where it is asked for: numbers elsewhere lead to what they counted."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for, by the names of the criteria: as it was written, and as it was read."""

    given: Mapping[str, str]
    values: Mapping[str, Any]

    def narrowed(self) -> Q:
        """Return all criteria as one condition on `RequestRecord`, but for the words."""
        condition = id_bounds(self)
        for name, value in self.values.items():
            if name.startswith(METADATA):
                condition &= _labelled(name.removeprefix(METADATA), value)
            elif name != "words":
                condition &= CRITERIA[name].narrow(value)
        return condition

    @property
    def words(self) -> str:
        """The words that prompt or answer must hold; empty: any."""
        return str(self.values.get("words", ""))

    def with_organization(self, organization_id: UUID | None) -> "Search":
        """Return the same search within one organization; ``None``: as it is."""
        if organization_id is None:
            return self
        given = {**self.given, "organization": str(organization_id)}
        return Search(given, {**self.values, "organization": organization_id})


def read_search(given: Mapping[str, str]) -> Search:
    """Read a search from texts by the names of the criteria; empty ones ask for nothing.

    Raises `SearchRefused`, naming every criterion that cannot be read or that contradicts another.
    """
    said = {name: text.strip() for name, text in given.items() if text and text.strip()}
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, text in said.items():
        try:
            values[name] = _value(name, text)
        except ValueError as error:
            problems[without_odd_characters(name)] = str(error)
    if sum(name.startswith(METADATA) for name in said) > MOST_LABELS:
        problems["metadata"] = f"Name at most {MOST_LABELS} labels."
    problems |= {name: text for name, text in _contradictions(values).items() if name not in problems}
    if problems:
        raise SearchRefused(problems)
    return Search(said, values)


def _value(name: str, text: str) -> Any:
    if name.startswith(METADATA):
        as_text(name)
        return as_text(text)
    if name == "metadata":
        raise ValueError("Write a label as name=value, one a line.")
    if name not in CRITERIA:
        raise ValueError("There is no such parameter here.")
    return CRITERIA[name].read(text)


def _contradictions(values: Mapping[str, Any]) -> dict[str, str]:
    problems = {}
    if "since" in values and "until" in values and values["until"] <= values["since"]:
        problems["until"] = "Must be after the beginning: nothing lies in this period."
    if "cost_min" in values and "cost_max" in values and values["cost_max"] < values["cost_min"]:
        problems["cost_max"] = "Must not be below the lowest cost."
    return problems


def in_words(search: Search) -> list[tuple[str, str]]:
    """Return what is asked for as (label, text), for people."""
    return [
        (f"Metadata: {name.removeprefix(METADATA)}" if name.startswith(METADATA) else CRITERIA[name].label, text)
        for name, text in search.given.items()
    ]


# --- The time in an id


def id_bounds(search: Search) -> Q:
    """Return what is known of the ids beforehand: of an index, which has no other column, the part to look at."""
    condition = Q()
    if "since" in search.values:
        condition &= Q(pk__gte=id_at(search.values["since"], -ID_SLACK))
    if "until" in search.values:
        condition &= Q(pk__lt=id_at(search.values["until"], ID_SLACK))
    for name in ("request_id", "q"):
        if isinstance(known := _id_in(search.given.get(name, "")), UUID):
            condition &= Q(pk=known)
    return condition


def _id_in(text: str) -> UUID | None:
    try:
        return as_uuid(text)
    except ValueError:
        return None


def id_at(moment: datetime, slack: timedelta = timedelta()) -> UUID:
    """Return the lower bound of the ids made at ``moment`` or later, whatever its year."""
    return first_id_at(min(max(moment, _EARLIEST), _LATEST) + slack)


# --- Conditions


def _labelled(key: str, value: str) -> Q:
    if connection.features.supports_json_field_contains:
        return Q(metadata__contains={key: value})
    return Q(RawSQL(_SQLITE_LABELLED, [key, value], BooleanField()))  # noqa: S611 - both values are bound


def _listed(column: str, name: str) -> Callable[[Any], Q]:
    """Return a condition: one of the objects in a column's list has the value under the name."""

    def narrow(value: Any) -> Q:
        if connection.features.supports_json_field_contains:
            return Q(**{f"{column}__contains": [{name: str(value)}]})
        statement = _SQLITE_ENTRY.format(column=column, name=name)
        return Q(RawSQL(statement, [str(value)], BooleanField()))  # noqa: S611 - the value is bound

    return narrow


def _named(column: str) -> Callable[[Any], Q]:
    """Return a condition: a column is the text, or is like it where it holds a ``*``."""

    def narrow(text: str) -> Q:
        if "*" not in text:
            return Q(**{column: text})
        like = "ILIKE" if connection.vendor == "postgresql" else "LIKE"
        pattern = "".join({"*": "%", "%": r"\%", "_": r"\_", "\\": r"\\"}.get(char, char) for char in text)
        statement = rf"audit_requestrecord.{column} {like} %s ESCAPE '\'"
        return Q(RawSQL(statement, [pattern], BooleanField()))  # noqa: S611 - the column is ours, the pattern bound

    return narrow


def _anything(term: str) -> Q:
    """A request by its id or its key, or by a part of what it is called by."""
    known = _id_in(term)
    if known is not None:
        return Q(pk=known)
    if term.startswith("lcp_"):
        return Q(api_key_prefix=term.split("_")[1])
    condition = Q(IContains(Cast("metadata", models.TextField()), term))
    for column in ("application_name", "user_name", "end_user", "model", "error_code"):
        condition |= Q(**{f"{column}__icontains": term})
    return condition


def _ended(status: str) -> Q:
    return Q(status__in=(Status.ERROR, Status.INTERRUPTED)) if status == FAILED else Q(status=status)


def _refused_by(policy: UUID) -> Q:
    """A request that the policy was the first to refuse; `NO_POLICY`: one that was refused, and by no policy."""
    statement = rollup_sql.dialect().refused_by.format(r="audit_requestrecord")
    refused = RawSQL(statement, [], models.TextField())  # noqa: S611 - put together from constants
    return Q(status=Status.BLOCKED) & Q(Exact(refused, "" if policy == NO_POLICY else str(policy)))


def texts_with(words: str) -> Q:
    """Return the condition on `RequestText` that prompt or answer holds the words.

    On PostgreSQL they are whole words in any order; "quoted" ones follow each other, ``or`` and ``-`` mean what they
    mean to a search engine. Elsewhere each is a part of the text.
    """
    if connection.vendor == "postgresql":
        return Q(RawSQL(_SAID, [words], BooleanField()))  # noqa: S611 - the words are bound
    condition = Q()
    for word in words.replace('"', " ").split():
        condition &= Q(prompt_redacted__icontains=word) | Q(response_redacted__icontains=word)
    return condition


# --- What can be asked for


def _pattern(text: str) -> str:
    if as_text(text).count("*") > MOST_STARS:
        raise ValueError(f"Use * at most {MOST_STARS} times.")
    return text


def _words(text: str) -> str:
    if not any(char.isalnum() for char in as_text(text)):
        raise ValueError("Give at least one word: letters or digits.")
    if len(text.split()) > MOST_WORDS:
        raise ValueError(f"Give at most {MOST_WORDS} words.")
    return text


_ANY_TEXT = "* stands for any text."
_NAMELESS = {
    "application": Q(application_id=None),
    "user": Q(user_id=None),
    "model": Q(model=""),
    "provider": Q(provider=""),
}

CRITERIA: dict[str, Criterion] = {
    "since": Criterion("From", as_moment, lambda value: Q(timestamp__gte=value), "From this moment on (ISO 8601)."),
    "until": Criterion("Until", as_moment, lambda value: Q(timestamp__lt=value), "Before this moment (ISO 8601)."),
    "organization": Criterion("Organization", as_uuid, lambda value: Q(organization_id=value)),
    "application": Criterion("Application", as_uuid, lambda value: Q(application_id=value)),
    "user": Criterion("User", as_uuid, lambda value: Q(user_id=value)),
    "api_key": Criterion("API key", as_uuid, lambda value: Q(api_key_id=value)),
    "end_user": Criterion("End user", as_text, lambda value: Q(end_user=value), "As the client called them."),
    "model": Criterion("Model", _pattern, _named("model"), f"As asked for. {_ANY_TEXT}"),
    "provider": Criterion("Provider", as_text, lambda value: Q(provider=value)),
    "status": Criterion("Outcome", as_choice(*OUTCOMES), _ended, "failed: error or interrupted.", choices=OUTCOMES),
    "error_code": Criterion("Error code", _pattern, _named("error_code"), f"Why it was refused or failed. {_ANY_TEXT}"),
    "policy": Criterion("Policy", as_uuid, _listed("policies", "id"), "One that applied, in any version."),
    "finding": Criterion("Finding", as_text, _listed("findings", "detector"), "A detector, such as email."),
    "cost_min": Criterion("Cost from", as_usd, lambda value: Q(cost_nano_usd__gte=value), "US dollars, at least."),
    "cost_max": Criterion("Cost to", as_usd, lambda value: Q(cost_nano_usd__lte=value), "US dollars, at most."),
    "request_id": Criterion("Request id", as_uuid, lambda value: Q(pk=value)),
    "words": Criterion(
        "Words",
        _words,
        lambda _: Q(),
        'Words of prompt or answer, as they are kept: redacted. "as a phrase", or, -not.',
    ),
    "model_is": Criterion("Model, exactly", as_text, lambda value: Q(model=value), "Its whole name.", is_rare=True),
    "refused_by": Criterion(
        "Refused by", as_uuid, _refused_by, f"A policy's id; {NO_POLICY}: refused, by none.", is_rare=True
    ),
    "without": Criterion(
        "Without", as_choice(*_NAMELESS), lambda value: _NAMELESS[value], choices=tuple(_NAMELESS), is_rare=True
    ),
    "q": Criterion("Anything", as_text, _anything, "A request's id, or a part of a name, model, label or error code."),
}
"""By the name in an address. Besides, ``metadata.<key>``: the label's value."""

INDEXED: tuple[tuple[str, str], ...] = (
    ("user", "user_id"),
    ("application", "application_id"),
)
"""Criteria by which an index finds records in the order of time, as (name, column); the first that is given counts."""
INDEXED_WITHIN: tuple[tuple[str, str], ...] = (
    ("end_user", "end_user"),
    ("model_is", "model"),
    ("model", "model"),
    ("error_code", "error_code"),
    ("status", "status"),
)
"""Those by which an index does so within one organization."""


def indexed(search: Search, *, within_one: bool) -> Q:
    """Return the one condition by which an index finds records in the order of their ids, if there is one.

    ``within_one``: whether the search is bound to one organization.
    """
    for name, column in INDEXED + (INDEXED_WITHIN if within_one else ()):
        if name in search.values and "*" not in str(search.values[name]) and search.values[name] != FAILED:
            return Q(**{column: search.values[name]})
    return Q()
