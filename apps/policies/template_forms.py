"""The form in which a first set of policies is chosen and adjusted: its fields are made of `templates.TEMPLATES`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.db.models import Q
from django.utils import timezone

from apps.orgs.models import ApiKey, Application, Organization
from apps.policies.describe import describe
from apps.policies.engine.kinds import ConfigError, parse_config
from apps.policies.models import Policy
from apps.policies.templates import ROUTED, TEMPLATES, Answer, Question, Template

if TYPE_CHECKING:
    from django.forms import CheckboxInput, NumberInput, Select, Textarea, TextInput
else:
    from unfold.widgets import UnfoldAdminIntegerFieldWidget as NumberInput
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput
    from unfold.widgets import UnfoldBooleanSwitchWidget as CheckboxInput

LEAST_USD = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Row:
    """A template as the page shows it: whether it is chosen, its questions, and what it would do as answered."""

    template: Template
    use: Any
    questions: list[Any]
    says: str
    existing: Policy | None


class TemplatesForm(forms.Form):
    """Which templates, with which answers, for whom in an organization."""

    application = forms.ModelChoiceField(
        queryset=Application.objects.none(),
        required=False,
        empty_label="The whole organization",
        label="They hold for",
        widget=Select(),
    )

    def __init__(self, organization: Organization, routed: Sequence[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.organization = organization
        self.fields["application"].queryset = organization.applications.all()  # type: ignore[attr-defined]  # of rows
        self._there = {policy.name: policy for policy in Policy.objects.filter(organization=organization)}
        for template in TEMPLATES:
            self._add(template, routed)

    def _add(self, template: Template, routed: Sequence[str]) -> None:
        suggested = template.chosen and template.name not in self._there
        self.fields[_use(template)] = forms.BooleanField(
            label=template.title, required=False, initial=suggested, widget=CheckboxInput()
        )
        for question in template.questions:
            self.fields[_name(template, question)] = _field(question, routed)

    def clean(self) -> dict[str, Any]:
        """Refuse to choose nothing, and beside its field what cannot be. What is not chosen is not read."""
        data = super().clean() or self.cleaned_data
        chosen = [template for template in TEMPLATES if data.get(_use(template))]
        for template in TEMPLATES:
            if template not in chosen:
                for question in template.questions:
                    self.errors.pop(_name(template, question), None)
        for template in chosen:
            self._check(template)
        if not chosen:
            self.add_error(None, "Choose at least one.")
        return data

    def _check(self, template: Template) -> None:
        for question in template.questions:
            name = _name(template, question)
            if name not in self.errors and self.cleaned_data.get(name) in (None, "", []):
                self.add_error(name, "Fill this in, or do not choose this policy.")
        if any(_name(template, question) in self.errors for question in template.questions):
            return
        if template.name in self._there:
            self.add_error(_use(template), "There is a policy of this name already: change that one.")
        elif template.each_key and not self._keys(template):
            self.add_error(_use(template), "There is no active key without such a policy. Create one first.")
        try:
            parse_config(template.kind, template.config(self._answers(template, self.cleaned_data)))
        except ConfigError as error:
            name = f"{template.key}_{error.field}"
            self.add_error(name if name in self.fields else _use(template), str(error))

    def _answers(self, template: Template, data: dict[str, Any]) -> dict[str, Any]:
        return {question.name: data.get(_name(template, question)) for question in template.questions}

    def policies(self) -> list[Policy]:
        """Return the chosen policies of a valid form, unsaved."""
        return [
            policy for template in TEMPLATES if self.cleaned_data[_use(template)] for policy in self._policies(template)
        ]

    def _policies(self, template: Template) -> Iterator[Policy]:
        config = template.config(self._answers(template, self.cleaned_data))
        common = {"organization": self.organization, "kind": template.kind.value, "config": config}
        if not template.each_key:
            yield Policy(**common, name=template.name, application=self.cleaned_data["application"])
            return
        for key in self._keys(template):
            yield Policy(**common, name=f"{template.name}: {key.name}"[:200], api_key=key)

    def _keys(self, template: Template) -> Iterable[ApiKey]:
        rows = ApiKey.objects.filter(organization=self.organization, application__isnull=False, revoked_at=None)
        rows = rows.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
        rows = rows.exclude(policy__name__startswith=template.name)
        application = self.cleaned_data.get("application")
        return rows.filter(application=application) if application else rows

    def rows(self) -> list[Row]:
        """Return the templates as the page shows them."""
        return [
            Row(
                template,
                self[_use(template)],
                [self[_name(template, question)] for question in template.questions],
                self.says(template),
                self._there.get(template.name),
            )
            for template in TEMPLATES
        ]

    def says(self, template: Template) -> str:
        """Return in a sentence what a template would do as it is answered now; nothing while it cannot be said."""
        if not self.is_bound:
            answers = {q.name: self._cleaned(template, q, self[_name(template, q)].initial) for q in template.questions}
        else:
            answers = {q.name: self._cleaned(template, q, self[_name(template, q)].data) for q in template.questions}
        if any(answer in (None, "", []) for answer in answers.values()):
            return ""
        config = template.config(answers)
        try:
            parse_config(template.kind, config)
        except ConfigError:
            return ""
        return describe(template.kind, config)

    def _cleaned(self, template: Template, question: Question, value: Any) -> Any:
        try:
            return self.fields[_name(template, question)].clean(value)
        except forms.ValidationError:
            return None


class _Patterns(forms.CharField):
    """Model patterns, one a line, as a list."""

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        return [line.strip() for line in text.splitlines() if line.strip()]


def _use(template: Template) -> str:
    return f"use_{template.key}"


def _name(template: Template, question: Question) -> str:
    return f"{template.key}_{question.name}"


def _field(question: Question, routed: Sequence[str]) -> forms.Field:
    match question.answer:
        case Answer.MODELS:
            suggested = routed if question.suggested == ROUTED else question.suggested
            lines = min(max(len(suggested), 2), 8)
            return _Patterns(
                label=question.label,
                required=False,
                initial="\n".join(suggested),
                max_length=100_000,
                widget=Textarea(attrs={"rows": lines}),
            )
        case Answer.CHOICE:
            return forms.ChoiceField(
                label=question.label,
                required=False,
                initial=question.suggested,
                choices=question.choices,
                widget=Select(),
            )
        case Answer.USD:
            return forms.DecimalField(
                label=question.label,
                required=False,
                initial=question.suggested,
                min_value=LEAST_USD,
                max_value=question.most,
                decimal_places=2,
                widget=TextInput(attrs={"inputmode": "decimal"}),
            )
        case Answer.COUNT:
            return forms.IntegerField(
                label=question.label,
                required=False,
                initial=question.suggested,
                min_value=1,
                max_value=question.most,
                widget=NumberInput(),
            )
