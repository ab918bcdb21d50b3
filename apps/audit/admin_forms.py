"""The forms of the audit's admin pages: a search, a saved search, an export."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from django import forms
from django.db.models import Model, QuerySet

from apps.audit.exports.formats import missing
from apps.audit.models import Export, SavedSearch, Status
from apps.audit.search import CRITERIA, FAILED, METADATA, Search, SearchRefused, in_words, read_search
from apps.orgs.models import Application, Organization, ProviderCredential, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import MOST_CHOICES, ScopedForm
from apps.orgs.scoping import organizations_of, visible
from apps.policies.describe import DETECTOR_NAMES
from apps.policies.models import Policy

if TYPE_CHECKING:
    from django.forms import RadioSelect, Select, Textarea, TextInput
else:
    from unfold.widgets import UnfoldAdminRadioSelectWidget as RadioSelect
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput

SEVERAL = "You are in several organizations: choose one of them in the search first."
_PAIRS = "One label a line: name=value."
FIRST = ("words", "q", "since", "until", "status", "application", "model")
"""The criteria that are there at once; the others are behind "More"."""
_MOMENT = "%Y-%m-%dT%H:%M:%S"


def given_by(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return a search's texts by the names of the criteria, of an address or a form: labels may come as one text."""
    given = {name: text for name, text in pairs.items() if name != "metadata" and text.strip()}
    for line in filter(None, map(str.strip, pairs.get("metadata", "").splitlines())):
        name, _, text = line.partition("=")
        # Without a value it is refused by its name, like any other criterion that cannot be read.
        given[f"{METADATA}{name.strip()}" if text.strip() else "metadata"] = text.strip() or line
    return given


def address_of(given: Mapping[str, str]) -> str:
    """Return a search as the query of an address."""
    return urlencode(sorted(given.items()))


class SearchForm(forms.Form):
    """What can be searched by. It is filled from the address, checked by the search itself, and changes nothing."""

    def __init__(self, person: User, pairs: Mapping[str, str]) -> None:
        self.given = given_by(pairs)
        labels = [f"{name[len(METADATA) :]}={text}" for name, text in self.given.items() if name.startswith(METADATA)]
        super().__init__({**self.given, "metadata": pairs.get("metadata") or "\n".join(labels)})
        self.search: Search | None = None
        for name, one in CRITERIA.items():
            if one.is_rare and name not in self.given:
                continue
            self.fields[name] = self._field(name, one.label, one.help, _choices(name, person))
        self.fields["metadata"] = _text("Metadata", _PAIRS, Textarea(attrs={"rows": 1}))
        if len(_organizations(person)) < 2:
            del self.fields["organization"]
        self.order_fields(FIRST)

    @property
    def first(self) -> list[forms.BoundField]:
        """The fields that are there at once."""
        return [self[name] for name in self.fields if name in FIRST]

    @property
    def more(self) -> list[forms.BoundField]:
        """The others."""
        return [self[name] for name in self.fields if name not in FIRST]

    @property
    def needs_more(self) -> bool:
        """Whether something is asked for, or wrong, in the others."""
        named = {name.partition(".")[0] for name in self.given} | set(self.errors)
        return bool(named & {field.name for field in self.more})

    def _field(self, name: str, label: str, explained: str, choices: list[tuple[str, str]] | None) -> forms.Field:
        if choices is not None:
            known = {value for value, _ in choices}
            own = self.given.get(name, "")
            shown = [("", "Any"), *choices, *([(own, own)] if own and own not in known else [])]
            return _text(label, explained, Select(choices=shown))
        widget = TextInput(attrs={"id": "searchbar"} if name == "q" else {})
        if name in ("since", "until"):
            widget.input_type = "datetime-local"
            widget.attrs |= {"step": "1"}
            label, explained = f"{label} (UTC)", ""
            self._show_moment(name)
        return _text(label, explained, widget)

    def _show_moment(self, name: str) -> None:
        """Write a moment as the browser's field takes it."""
        try:
            moment = CRITERIA[name].read(self.given.get(name, ""))
        except ValueError:
            return
        self.data = {**self.data, name: f"{moment:{_MOMENT}}"}

    def clean(self) -> dict[str, Any]:
        """Read the search; what is wrong is said beside its field."""
        try:
            self.search = read_search(self.given)
        except SearchRefused as refused:
            for name, said in refused.problems.items():
                field = "metadata" if name.startswith("metadata") else name
                self.add_error(field if field in self.fields else None, said)
        return self.cleaned_data


def _text(label: str, explained: str, widget: Any) -> forms.CharField:
    return forms.CharField(label=label, help_text=explained, widget=widget, required=False)


def in_names(person: User, given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a search asks for as (label, text), with the names of what the person may see instead of ids.

    Raises `SearchRefused` for what cannot be read.
    """
    search = read_search(given)
    said = dict(search.given)
    for name in _rows().keys() & said.keys():
        row = visible(_rows()[name], person).filter(pk=search.values[name]).first()
        said[name] = str(row) if row else said[name]
    for name in {"since", "until"} & said.keys():
        said[name] = f"{search.values[name]:%Y-%m-%d %H:%M:%S} UTC"
    return in_words(Search(said, search.values))


def _rows() -> "dict[str, QuerySet[Any]]":
    """Return what ids of a search name."""
    return {
        "organization": Organization.objects.all(),
        "application": Application.objects.select_related("organization"),
        "user": User.objects.all(),
        "policy": Policy.objects.select_related("organization"),
    }


def _choices(name: str, person: User) -> list[tuple[str, str]] | None:
    """Return what can be chosen, ``None`` where one types: also where there is more than a list can show."""
    rows = _rows()
    words: dict[str, Any] = {
        "status": [*((value, str(label)) for value, label in Status.choices), (FAILED, "Error or interrupted")],
        "provider": [(value, str(label)) for value, label in ProviderCredential.Provider.choices],
        "finding": [(value, f"{value}: {said}") for value, said in DETECTOR_NAMES.items()],
    }
    if name in rows:
        found = list(visible(rows[name], person)[: MOST_CHOICES + 1])
        several = len(_organizations(person)) > 1
        return [(str(row.pk), _called(row, several)) for row in found] if len(found) <= MOST_CHOICES else None
    return words.get(name)


def _called(row: Model, several: bool) -> str:
    organization = getattr(row, "organization", None)
    return f"{row} ({organization})" if several and organization else str(row)


def _organizations(person: User) -> list[UUID]:
    if person.is_superuser:
        return list(Organization.objects.values_list("pk", flat=True)[:2])
    return list(organizations_of(person, Action.VIEW, "audit.requestrecord"))


class _OfASearch(ScopedForm):
    """A form about a search, which comes along in a hidden field as the query of its address."""

    query = forms.CharField(required=False, widget=forms.HiddenInput())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.search: Search | None = None
        if not self.instance._state.adding:  # noqa: SLF001  # documented as public, whatever its name
            self.initial["query"] = address_of(self.instance.criteria)

    @property
    def says(self) -> list[tuple[str, str]]:
        """What it searches for as (label, text), for people; empty: everything, or what cannot be read."""
        query = str((self.data if self.is_bound else self.initial).get("query", ""))
        try:
            return in_names(self.person, given_by(dict(parse_qsl(query))))
        except SearchRefused:
            return []

    def _is_line(self, name: str) -> bool:
        return name != "query" and super()._is_line(name)

    def clean(self) -> dict[str, Any]:
        """Read the search and find the one organization that it is in."""
        data = super().clean() or self.cleaned_data
        try:
            self.search = read_search(given_by(dict(parse_qsl(data.get("query", "")))))
        except SearchRefused as refused:
            for name, said in refused.problems.items():
                label = CRITERIA[name].label if name in CRITERIA else name
                self.add_error(None, f"{label}: {said}")
            return data
        if self.instance._state.adding:  # noqa: SLF001  # as above
            self.instance.organization_id = self._organization(self.search)
        return data

    def _organization(self, search: Search) -> UUID | None:
        named: UUID | None = search.values.get("organization")
        if named is not None or self.person.is_superuser:
            return named
        own = organizations_of(self.person, Action.ADD, self._meta.model._meta.label_lower)
        if len(own) != 1:
            self.add_error(None, SEVERAL)
            return None
        return next(iter(own))


class SavedSearchForm(_OfASearch):
    """A search's name, and who has it."""

    class Meta:
        model = SavedSearch
        fields = ["name", "is_shared"]

    def clean(self) -> dict[str, Any]:
        """Keep the search as it was written, as the person's own if it is new, under a name of its own."""
        data = super().clean()
        row = self.instance
        if row._state.adding:  # noqa: SLF001  # documented as public, whatever its name
            row.owner_id, row.owner_name = self.person.pk, str(self.person)[:200]
        if self.search is not None:
            row.criteria = dict(self.search.given)
        namesakes = SavedSearch.objects.filter(owner_id=row.owner_id, name=data.get("name"))
        if namesakes.filter(organization_id=row.organization_id).exclude(pk=row.pk).exists():
            self.add_error("name", "There is a saved search of this name already. Choose another.")
        return data


class ExportForm(_OfASearch):
    """What is written of a search, how, and why."""

    kind = forms.ChoiceField(
        label="What",
        choices=[
            (Export.Kind.RECORDS.value, "Records, one a line"),
            (
                Export.Kind.EVIDENCE.value,
                "An evidence pack: records, the policies that applied, changes, and a manifest of hashes, as one ZIP",
            ),
        ],
        initial=Export.Kind.RECORDS.value,
        widget=RadioSelect(),
    )
    format = forms.ChoiceField(
        choices=[(one.value, one.label) for one in Export.Format if one is not Export.Format.ZIP],
        initial=Export.Format.CSV.value,
        required=False,
        widget=RadioSelect(),
    )
    reason = forms.CharField(
        required=False, max_length=1000, widget=Textarea(attrs={"rows": 2}), help_text="For the record: why, for whom."
    )

    class Meta:
        model = Export
        fields = ["kind", "format", "reason"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if said := missing("parquet"):
            self.fields["format"].help_text = said

    def clean_format(self) -> str:
        """Return the format that goes with what is written. Raises `ValidationError` for one that is not here."""
        if self.cleaned_data.get("kind") == Export.Kind.EVIDENCE:
            return str(Export.Format.ZIP.value)
        chosen = str(self.cleaned_data.get("format") or Export.Format.CSV.value)
        if said := missing(chosen):
            raise forms.ValidationError(said)
        return chosen
