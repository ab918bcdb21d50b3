"""The forms of policies, one for each kind, and of prices."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms

from apps.audit.money import nano_from_usd, usd_from_nano
from apps.orgs.models import ProviderCredential
from apps.orgs.scoped_admin import ScopedForm
from apps.policies.describe import DETECTOR_NAMES, FEATURE_NAMES
from apps.policies.engine.kinds import (
    DETECTORS,
    MAX_LIMIT_USD,
    WINDOW_SECONDS,
    ConfigError,
    Direction,
    Feature,
    FindingAction,
    Fit,
    Kind,
    Per,
    Unscannable,
    parse_config,
)
from apps.policies.engine.policy import Level, Mode
from apps.policies.models import Policy, Price

if TYPE_CHECKING:
    from django.forms import CheckboxInput, NumberInput, RadioSelect, Select, Textarea, TextInput
else:
    from unfold.widgets import UnfoldAdminIntegerFieldWidget as NumberInput
    from unfold.widgets import UnfoldAdminRadioSelectWidget as RadioSelect
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput
    from unfold.widgets import UnfoldBooleanSwitchWidget as CheckboxInput

SCOPES = {
    Level.PLATFORM: "Everyone on the platform",
    Level.ORGANIZATION: "A whole organization",
    Level.APPLICATION: "One application",
    Level.USER: "One user",
    Level.KEY: "One API key",
}
MODES = [
    (Mode.ENFORCE.value, "Enforce: refuse what breaks the rule"),
    (Mode.SHADOW.value, "Shadow: refuse nothing, only record what would have been refused"),
    (Mode.OFF.value, "Off: do nothing"),
]
VALIDITY = ("valid_from", "valid_until")
_NARROWER = {Level.APPLICATION: "application", Level.USER: "user", Level.KEY: "api_key"}


class PolicyForm(ScopedForm):
    """What every kind of policy has: a name, a scope and a mode. A kind adds the fields of its configuration."""

    KIND: ClassVar[Kind]
    CONFIG_FIELDS: ClassVar[tuple[str, ...]] = ()

    applies_to = forms.ChoiceField(
        label="Applies to",
        choices=[(level.value, label) for level, label in SCOPES.items()],
        initial=Level.ORGANIZATION.value,
        widget=Select(),
        help_text="Policies of several scopes add up: a request must pass every one.",
    )
    mode = forms.ChoiceField(choices=MODES, initial=Mode.ENFORCE.value, widget=RadioSelect())
    models = forms.CharField(
        label="Only for these models",
        required=False,
        widget=Textarea(attrs={"rows": 2}),
        help_text="One pattern a line; * stands for any text. Empty: for every model.",
    )

    class Meta:
        model = Policy
        fields = ["name", "organization", "application", "user", "api_key", "mode", "models", *VALIDITY]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.kind = self.KIND.value
        self.initial["models"] = _lines(self.instance.models)
        if self.instance.config:
            self.initial = {**self.initial, **self.initial_of(self.instance.config)}
        if not self.instance.version:
            self._offer_scopes()
        else:
            del self.fields["applies_to"]

    def _offer_scopes(self) -> None:
        self.fields["organization"].required = False
        if not self.person.is_superuser:
            own = [(level.value, label) for level, label in SCOPES.items() if level is not Level.PLATFORM]
            self.fields["applies_to"].choices = own  # type: ignore[attr-defined]  # a field with choices

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return what the kind's fields show of a stored configuration, as far as it can be read."""
        raise NotImplementedError

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration that the kind's fields say."""
        raise NotImplementedError

    def field_of(self, name: str) -> str:
        """Return the form's field for a field of the configuration; ``""`` where the form has none."""
        return name if name in self.CONFIG_FIELDS else ""

    def clean_models(self) -> list[str]:
        """Return the patterns as a list."""
        return _patterns(self.cleaned_data["models"])

    def clean(self) -> dict[str, Any]:
        """Check scope and configuration, each error at its field."""
        data = super().clean() or self.cleaned_data
        if "applies_to" in self.fields:
            self._clean_scope(data)
        if not any(name in self.errors for name in self.CONFIG_FIELDS):
            self._clean_config(data)
        return data

    def _clean_scope(self, data: dict[str, Any]) -> None:
        level = Level(data["applies_to"]) if "applies_to" in data else None
        if level is None:
            return
        for other, name in _NARROWER.items():
            if other is not level:
                data[name] = None
        if level is Level.PLATFORM:
            data["organization"] = None
            return
        target = data.get(_NARROWER.get(level, ""))
        if level in (Level.APPLICATION, Level.KEY) and target is not None:
            data["organization"] = target.organization
        self._require_target(level, data)

    def _require_target(self, level: Level, data: dict[str, Any]) -> None:
        name = _NARROWER.get(level)
        if name and not data.get(name):
            if name not in self.errors:
                self.add_error(name, "Choose which one.")
        elif not data.get("organization") and "organization" not in self.errors:
            if level is Level.KEY:
                self.add_error("api_key", "This key belongs to a person, not to an organization: limit the user.")
            else:
                self.add_error("organization", "Choose the organization.")

    def _clean_config(self, data: dict[str, Any]) -> None:
        config = self.config(data)
        try:
            parse_config(self.KIND, config)
        except ConfigError as error:
            field = self.field_of(error.field)
            self.add_error(field or None, str(error))
        else:
            self.instance.config = config


class ModelRestrictionForm(PolicyForm):
    """Which models may be asked for."""

    KIND = Kind.MODEL_RESTRICTION
    CONFIG_FIELDS = ("allow", "deny")

    allow = forms.CharField(
        label="Allowed models",
        required=False,
        widget=Textarea(attrs={"rows": 5, "placeholder": "gpt-4o*\nclaude-*"}),
        help_text="One pattern a line; * stands for any text. A model is usable only where a policy allows it.",
    )
    deny = forms.CharField(
        label="Denied models",
        required=False,
        widget=Textarea(attrs={"rows": 3}),
        help_text="One pattern a line. Denied wins over allowed.",
    )

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return the patterns, one a line."""
        return {name: _lines(_member(config, name)) for name in self.CONFIG_FIELDS}

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the patterns as lists; an empty field is left out."""
        listed = {name: _patterns(data[name]) for name in self.CONFIG_FIELDS}
        return {name: lines for name, lines in listed.items() if lines}


class RateLimitForm(PolicyForm):
    """How much in how long."""

    KIND = Kind.RATE_LIMIT
    CONFIG_FIELDS = ("requests", "tokens", "per", "concurrent")

    requests = forms.IntegerField(required=False, widget=NumberInput(), help_text="Leave empty for any number.")
    tokens = forms.IntegerField(
        required=False, widget=NumberInput(), help_text="Of input and output together. Leave empty for any number."
    )
    per = forms.ChoiceField(
        choices=[("", "Choose"), *((window, f"a {window}") for window in WINDOW_SECONDS)],
        required=False,
        widget=Select(),
        help_text="In any such span of time, not by the clock.",
    )
    concurrent = forms.IntegerField(
        label="At the same time",
        required=False,
        widget=NumberInput(),
        help_text="Requests under way at once. Leave empty for any number.",
    )

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return the numbers and the window."""
        return {name: _member(config, name) for name in self.CONFIG_FIELDS}

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return what is filled in."""
        return {name: data[name] for name in self.CONFIG_FIELDS if data[name] not in (None, "")}


class CostCapForm(PolicyForm):
    """How much money in how long."""

    KIND = Kind.COST_CAP
    CONFIG_FIELDS = ("limit_usd", "per", "span_hours", "hard", "fit", "alert_at")

    limit_usd = forms.DecimalField(
        label="Limit in USD",
        min_value=0,
        max_value=MAX_LIMIT_USD,
        decimal_places=9,
        max_digits=19,
        widget=TextInput(attrs={"inputmode": "decimal"}),
    )
    per = forms.ChoiceField(
        choices=[
            (Per.DAY.value, "a day (UTC)"),
            (Per.WEEK.value, "a week, from Monday (UTC)"),
            (Per.MONTH.value, "a calendar month (UTC)"),
            (Per.ROLLING.value, "any span of hours, rolling"),
            (Per.TOTAL.value, "in total, never starting anew"),
        ],
        initial=Per.MONTH.value,
        widget=Select(),
    )
    span_hours = forms.IntegerField(
        label="Hours of a rolling span",
        required=False,
        widget=NumberInput(),
        help_text="For a rolling span alone. What was spent leaves it after up to a sixtieth more.",
    )
    hard = forms.BooleanField(
        label="Refuse requests that do not fit",
        required=False,
        initial=True,
        widget=CheckboxInput(),
        help_text="Each request's worst case is set aside before it is sent. Off: spending is counted, not refused.",
    )
    fit = forms.ChoiceField(
        label="A request that could cost more than what is left",
        choices=[
            (Fit.REFUSE.value, "is refused"),
            (Fit.CLAMP.value, "gets a shorter answer, as far as the money reaches"),
        ],
        initial=Fit.REFUSE.value,
        widget=Select(),
    )

    alert_at = forms.RegexField(
        r"^\s*(\d{1,4}\s*(,\s*\d{1,4}\s*)*)?$",
        label="Record when these percents are spent",
        required=False,
        widget=TextInput(attrs={"placeholder": "50, 80, 100"}),
        help_text="Each is told once in a window, to the alert destinations that want it.",
        error_messages={"invalid": "Write whole percents with commas between them, such as 50, 80, 100."},
    )

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return the limit and its terms."""
        shown = {name: _member(config, name) for name in self.CONFIG_FIELDS}
        percents = shown["alert_at"]
        shown["alert_at"] = ", ".join(map(str, percents)) if isinstance(percents, list) else ""
        defaults = {"hard": True, "fit": Fit.REFUSE.value}
        return {name: defaults.get(name) if value is None else value for name, value in shown.items()}

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the limit as text, exactly, with its terms."""
        terms = {name: data[name] for name in ("per", "hard", "fit")}
        if data["span_hours"] is not None:
            terms["span_hours"] = data["span_hours"]
        if data["alert_at"].strip():
            terms["alert_at"] = [int(percent) for percent in data["alert_at"].split(",")]
        return {"limit_usd": f"{data['limit_usd']:f}", **terms}


ACTION_CHOICES = [
    ("", "Nothing"),
    (FindingAction.FLAG.value, "Flag: record that it was there"),
    (FindingAction.REDACT.value, "Redact: take it out before it goes on"),
    (FindingAction.BLOCK.value, "Block: refuse the request"),
]


class GuardrailForm(PolicyForm):
    """What happens to what must not be in a text."""

    KIND = Kind.GUARDRAIL
    CONFIG_FIELDS = ("direction", *(f"detector_{name}" for name in DETECTORS), "unscannable")

    direction = forms.ChoiceField(
        label="Looks at",
        choices=[
            (Direction.BOTH.value, "requests and answers"),
            (Direction.INPUT.value, "requests"),
            (Direction.OUTPUT.value, "answers"),
        ],
        initial=Direction.BOTH.value,
        widget=Select(),
    )
    unscannable = forms.ChoiceField(
        label="Pictures, files and sound",
        choices=[
            (Unscannable.BLOCK.value, "refuse: nobody can read them"),
            (Unscannable.ALLOW.value, "let pass unread"),
        ],
        initial=Unscannable.BLOCK.value,
        required=False,
        widget=Select(),
        help_text="Where anything is blocked or redacted.",
    )

    def field_of(self, name: str) -> str:
        """Return the select of a detector; the first one for what concerns them all."""
        if name == "detectors":
            return f"detector_{DETECTORS[0]}"
        return f"detector_{name}" if name in DETECTORS else super().field_of(name)

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return each detector's action."""
        chosen = _member(config, "detectors")
        actions = {f"detector_{name}": _member(chosen, name) or "" for name in DETECTORS}
        return {
            "direction": _member(config, "direction") or Direction.BOTH.value,
            "unscannable": _member(config, "unscannable") or Unscannable.BLOCK.value,
            **actions,
        }

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the detectors that do something."""
        chosen = {name: data[f"detector_{name}"] for name in DETECTORS if data[f"detector_{name}"]}
        passes = {"unscannable": data["unscannable"]} if data["unscannable"] == Unscannable.ALLOW.value else {}
        return {"detectors": chosen, "direction": data["direction"], **passes}


for _name in DETECTORS:
    GuardrailForm.declared_fields[f"detector_{_name}"] = forms.ChoiceField(
        label=f"{DETECTOR_NAMES[_name][0].upper()}{DETECTOR_NAMES[_name][1:]}",
        choices=ACTION_CHOICES,
        required=False,
        widget=Select(),
    )


class RequestLimitsForm(PolicyForm):
    """How large one request may be, and what it may make use of."""

    KIND = Kind.REQUEST_LIMITS
    CONFIG_FIELDS = ("max_input_tokens", "max_output_tokens", *(f"allow_{name}" for name in Feature))

    max_input_tokens = forms.IntegerField(
        label="Most input tokens",
        required=False,
        widget=NumberInput(),
        help_text="Bounded from above by the request's bytes. Leave empty for any number.",
    )
    max_output_tokens = forms.IntegerField(
        label="Most output tokens",
        required=False,
        widget=NumberInput(),
        help_text="Over all choices. A request that names no number gets this one. Leave empty for any number.",
    )

    def field_of(self, name: str) -> str:
        """Return the form's field; the first one for what concerns all features."""
        if name == "features":
            return f"allow_{Feature.TOOLS}"
        return f"allow_{name}" if name in Feature.__members__.values() else super().field_of(name)

    def initial_of(self, config: Any) -> dict[str, Any]:
        """Return the numbers and what is allowed: all but what the configuration forbids."""
        features = _member(config, "features")
        allowed = {f"allow_{name}": _member(features, name) is not False for name in Feature}
        return {name: _member(config, name) for name in ("max_input_tokens", "max_output_tokens")} | allowed

    def config(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers that are filled in, and the features that are forbidden."""
        numbers = {name: data[name] for name in ("max_input_tokens", "max_output_tokens") if data[name] is not None}
        forbidden = {name.value: False for name in Feature if not data[f"allow_{name}"]}
        return numbers | ({"features": forbidden} if forbidden else {})


for _feature, _words in FEATURE_NAMES.items():
    RequestLimitsForm.declared_fields[f"allow_{_feature}"] = forms.BooleanField(
        label=f"Allow {_words}", required=False, initial=True, widget=CheckboxInput()
    )


class RequestForm(forms.Form):
    """A request that is to be judged and not made."""

    model = forms.CharField(max_length=256, widget=TextInput(attrs={"placeholder": "gpt-4o"}))
    text = forms.CharField(
        label="Message", widget=Textarea(attrs={"rows": 4}), initial="Hello", help_text="Judged, and stored nowhere."
    )
    max_tokens = forms.IntegerField(
        label="Most output tokens", required=False, min_value=1, max_value=10**9, widget=NumberInput()
    )
    stream = forms.BooleanField(label="Streamed", required=False, widget=CheckboxInput())

    def body(self) -> dict[str, Any]:
        """Return the request."""
        said = self.cleaned_data
        body = {"model": said["model"], "messages": [{"role": "user", "content": said["text"]}]}
        if said["max_tokens"] is not None:
            body["max_tokens"] = said["max_tokens"]
        return body | ({"stream": True} if said["stream"] else {})


FORMS: dict[Kind, type[PolicyForm]] = {
    form.KIND: form for form in (ModelRestrictionForm, RateLimitForm, CostCapForm, RequestLimitsForm, GuardrailForm)
}


class UsdPerMillion(forms.DecimalField):
    """US dollars for a million tokens, kept as nano-USD."""

    widget = TextInput

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=1_000_000, decimal_places=9, max_digits=16, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        """Show nano-USD as dollars; what was typed stays as it was typed."""
        return usd_from_nano(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        """Return nano-USD, or ``None`` for nothing."""
        usd: Decimal | None = super().clean(value)
        return None if usd is None else nano_from_usd(usd)


class PriceForm(ScopedForm):
    """A price of our own, in US dollars for a million tokens."""

    provider = forms.ChoiceField(
        required=False, widget=Select(), help_text="Whose model of that name. Any: whoever serves it."
    )
    input_nano_usd = UsdPerMillion(label="Input, USD per million tokens")
    output_nano_usd = UsdPerMillion(label="Output, USD per million tokens")
    cached_input_nano_usd = UsdPerMillion(
        label="Cached input, USD per million tokens", required=False, help_text="Empty: as input."
    )

    class Meta:
        model = Price
        fields = [
            "provider",
            "model",
            "input_nano_usd",
            "output_nano_usd",
            "cached_input_nano_usd",
            "effective_from",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "provider" in self.fields:
            self._offer_providers()

    def _offer_providers(self) -> None:
        known = dict(ProviderCredential.Provider.choices)
        kept = self.instance.provider  # may name one that the API was told and nobody here knows
        choices = {"": "Any provider", **known, **({kept: kept} if kept and kept not in known else {})}
        self.fields["provider"].choices = list(choices.items())  # type: ignore[attr-defined]  # a field with choices


def _member(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, dict) else None


def _patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _lines(patterns: Any) -> str:
    return "\n".join(str(pattern) for pattern in patterns) if isinstance(patterns, list) else ""
