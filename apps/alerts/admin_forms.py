"""The form of a destination: a channel, what the channel needs, and which alerts go there."""

import re
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from apps.alerts.addresses import MOST_CHARACTERS, check_destination
from apps.alerts.models import Destination
from apps.audit.models import Alert
from apps.orgs.scoped_admin import ScopedForm

if TYPE_CHECKING:
    from django.forms import CheckboxSelectMultiple, PasswordInput, Select, Textarea, URLInput
else:
    from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget as CheckboxSelectMultiple
    from unfold.widgets import UnfoldAdminPasswordWidget as PasswordInput
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminURLInputWidget as URLInput

_BETWEEN = re.compile(r"[\s,;]+")
CHANNELS = [
    (Destination.Channel.EMAIL.value, "E-mail"),
    (Destination.Channel.WEBHOOK.value, "Webhook: JSON, signed"),
    (Destination.Channel.SLACK.value, "Slack, or what takes the same (Mattermost, Discord's /slack address)"),
]


class DestinationForm(ScopedForm):
    """Where alerts go. Slack's address goes in and never comes out."""

    NEEDED: ClassVar[dict[str, tuple[str, str]]] = {
        Destination.Channel.EMAIL.value: ("recipients", "Give at least one e-mail address."),
        Destination.Channel.WEBHOOK.value: ("url", "Give the address that messages are posted to."),
        Destination.Channel.SLACK.value: ("slack_url", "Give the address of the incoming webhook."),
    }

    channel = forms.ChoiceField(choices=CHANNELS, widget=Select(), help_text="Cannot be changed later.")
    kinds = forms.MultipleChoiceField(
        label="Alerts",
        choices=Alert.Kind.choices,
        initial=Alert.Kind.values,
        widget=CheckboxSelectMultiple(),
        error_messages={"required": "Choose at least one kind of alert."},
    )
    recipients = forms.CharField(
        required=False,
        max_length=3000,
        widget=Textarea(attrs={"rows": 2}),
        help_text="For e-mail: up to ten addresses, with commas or on lines of their own.",
    )
    url = forms.URLField(
        label="Webhook URL",
        required=False,
        max_length=MOST_CHARACTERS,
        assume_scheme="https",
        widget=URLInput(),
        help_text="For a webhook, such as https://hooks.example.com/alerts. Its signing secret is shown after saving.",
    )
    slack_url = forms.CharField(
        label="Slack URL",
        required=False,
        max_length=MOST_CHARACTERS,
        widget=PasswordInput(attrs={"autocomplete": "off"}),
        help_text="For Slack: the incoming webhook's address. Whoever has it can post, so it is stored encrypted.",
    )

    class Meta:
        model = Destination
        fields = ["organization", "name", "channel", "kinds", "recipients", "url", "is_active"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "recipients" in self.fields:
            self.initial["recipients"] = ", ".join(map(str, self.instance.recipients or []))
        if "slack_url" in self.fields and self.instance.encrypted_secret:
            self.fields["slack_url"].help_text = "Stored encrypted. Leave empty to keep it, or type a new one."

    def clean_recipients(self) -> list[str]:
        """Return the addresses; the model says whether they are some."""
        return [text for text in _BETWEEN.split(self.cleaned_data["recipients"]) if text]

    def clean_slack_url(self) -> str:
        """Refuse an address that no message would be posted to."""
        url: str = self.cleaned_data["slack_url"].strip()
        if url:
            try:
                check_destination(url, "slack_url")
            except ValidationError as error:
                raise ValidationError(error.messages) from None
        return url

    def clean(self) -> dict[str, Any]:
        """Refuse a destination without what its channel needs, and drop what another channel would need."""
        data = super().clean() or self.cleaned_data
        channel = data.get("channel") or self.instance.channel
        for of, (name, missing) in self.NEEDED.items():
            if of != channel and name in self.fields:
                data[name] = [] if name == "recipients" else ""
                self._errors.pop(name, None)  # type: ignore[attr-defined]  # of a field that says nothing here
            elif of == channel and not data.get(name) and name not in self.errors and not self._has(name):
                self.add_error(name, missing)
        return data

    def _has(self, name: str) -> bool:
        return name == "slack_url" and bool(self.instance.encrypted_secret)
