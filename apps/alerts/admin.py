"""The admin pages of alerts: what was told, where to, and what became of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Count, Prefetch, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.alerts.admin_forms import DestinationForm
from apps.alerts.models import Delivery, Destination
from apps.alerts.upkeep import MOST_TRIALS, UNREADABLE, TooManyTrials, may_retry, renew_secret, retry, try_out
from apps.audit.admin import DayFilter, OrganizationFilter
from apps.audit.models import Alert
from apps.audit.moments import moment
from apps.orgs.encryption import DecryptionError, KeysUnavailable
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import Question, ScopedAdmin, actor_of, badge, detail_action, user_of
from apps.orgs.scoping import may, visible

NO_KEYS = "The secret could not be encrypted or read: the key service does not answer. Try again."
DELIVERY_COLOURS = {"sent": "success", "waiting": "info", "failed": "danger"}


def _done(request: HttpRequest, work: Callable[[], HttpResponse]) -> HttpResponse | None:
    """Return the answer of work that needs secrets; ``None``, and say why, if they cannot be encrypted or read."""
    try:
        return work()
    except KeysUnavailable:
        messages.error(request, NO_KEYS)
    except DecryptionError:
        messages.error(request, UNREADABLE)
    return None


@admin.register(Alert)
class AlertAdmin(ScopedAdmin):
    """What there was to tell. Never changed by people."""

    list_display = ["time", "title", "kind", "current_state", "told"]
    list_filter = ["kind", "state", OrganizationFilter, ("timestamp", DayFilter)]
    search_fields = ["title", "id"]
    sortable_by = ()
    readonly_fields = ("time", "title", "text", "kind", "current_state", "told", "id")
    fields = readonly_fields

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Alert]":
        """Return the alerts, each with the deliveries that the person may see."""
        seen = visible(Delivery.objects.all(), user_of(request))
        rows: models.QuerySet[Alert] = super().get_queryset(request)
        return rows.prefetch_related(Prefetch("deliveries", seen, to_attr="seen_deliveries"))

    @admin.display(description="Time")
    def time(self, alert: Alert) -> str:
        """Return when it happened."""
        return moment(alert.timestamp)

    @badge("State", {"raised": "warning", "resolved": "success", "over": "info"})
    def current_state(self, alert: Alert) -> str:
        """Return whether it tells of something or of its end; over: what it tells of has ended."""
        return "over" if alert.resolved_at else alert.state

    @admin.display(description="Sent to")
    def told(self, alert: Any) -> str:
        """Return whom it was sent to, as far as the person may know."""
        if alert.told_at is None:
            return "Not yet"
        names = [f"{one.destination_name} ({one.state})" for one in alert.seen_deliveries]
        return ", ".join(names) or "-"


@admin.register(Destination)
class DestinationAdmin(ScopedAdmin):
    """Where alerts go."""

    form = DestinationForm
    list_display = ["name", "channel_name", "belongs_to", "wants", "current_state", "failed"]
    list_filter = ["organization", "channel", "is_active"]
    list_select_related = ["organization", "data_key"]
    search_fields = ["name", "url"]
    autocomplete_fields = ["organization"]
    ordering = ["name"]
    fields = ["organization", "name", "channel", "kinds", "recipients", "url", "slack_url", "shown_secret", "is_active"]
    readonly_fields = ["shown_secret", "wants", "goes_to"]
    actions_detail = ["send_test", "new_secret", "messages_sent"]
    NEEDS = {"recipients": "email", "url": "webhook", "slack_url": "slack"}
    """Which channel a field is for."""
    # The page of an existing destination has no choice of channel, and only its channel's fields.
    conditional_fields = {
        name: f"typeof channel === 'undefined' || channel == '{needs}'" for name, needs in NEEDS.items()
    }

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Destination]":
        """Return the destinations, each with how many messages to it have failed."""
        failed = Count("deliveries", filter=Q(deliveries__state=Delivery.State.FAILED))
        rows: models.QuerySet[Destination] = super().get_queryset(request).annotate(failed_count=failed)
        return rows

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields: of an existing one those of its channel, in words for who may only look."""
        fields: list[Any] = list(super().get_fields(request, obj))
        if obj is None:
            return [name for name in fields if name != "shown_secret"]
        left_out = {name for name, channel in self.NEEDS.items() if channel != obj.channel}
        left_out |= {"shown_secret"} if obj.channel == Destination.Channel.EMAIL else set()
        if self.has_change_permission(request, obj):
            return [name for name in fields if name not in left_out]
        told = {"kinds": "wants", "recipients": "goes_to"}
        return [told.get(name, name) for name in fields if name not in left_out | {"slack_url"}]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """Return what is shown only: the channel of an existing one among it."""
        return [*super().get_readonly_fields(request, obj), *(["channel"] if obj else [])]

    @admin.display(description="Channel", ordering="channel")
    def channel_name(self, destination: Destination) -> str:
        """Return how messages get there."""
        return destination.get_channel_display()

    @admin.display(description="Alerts of")
    def belongs_to(self, destination: Destination) -> str:
        """Return whose alerts go there."""
        return str(destination.organization or "The platform")

    @admin.display(description="Alerts")
    def wants(self, destination: Destination) -> str:
        """Return which alerts go there."""
        labels = dict(Alert.Kind.choices)
        return (
            "All" if set(destination.kinds) == labels.keys() else ", ".join(labels[kind] for kind in destination.kinds)
        )

    @admin.display(description="Recipients")
    def goes_to(self, destination: Destination) -> str:
        """Return whom messages by e-mail go to."""
        return ", ".join(destination.recipients)

    @badge("State", {"active": "success", "inactive": "danger", "unreadable": "danger"})
    def current_state(self, destination: Destination) -> str:
        """Return whether messages go there, or cannot because its secret cannot be read."""
        if destination.readable() is False:
            return "unreadable"
        return "active" if destination.is_active else "inactive"

    @admin.display(description="Failed")
    def failed(self, destination: Any) -> str:
        """Return a link to the messages that failed."""
        if not destination.failed_count:
            return "-"
        link = f"{_deliveries_of(destination)}&state__exact=failed"
        return format_html('<a class="text-link" href="{}">{} failed</a>', link, destination.failed_count)

    @admin.display(description="Stored secret")
    def shown_secret(self, destination: Destination) -> str:
        """Return the last four characters, which are all that is readable."""
        return f"…{destination.last_four}" if destination.encrypted_secret else "none"

    # --- Saving

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the form; where a secret cannot be encrypted or read, say so and leave everything as it was."""
        page = partial(super().changeform_view, request, *args, **kwargs)
        return _done(request, page) or HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store the destination with its secrets: a webhook's is made here, Slack's address comes with the form."""
        if obj.channel == Destination.Channel.WEBHOOK:
            if not change:
                # The text travels on the row in memory to the answer, and nowhere else.
                obj.issued_secret = obj.new_signing_secret()
            elif "url" in form.changed_data:
                url, obj.url = obj.url, form.initial["url"]
                obj.move(url)
        elif form.cleaned_data.get("slack_url"):
            obj.set_slack_url(form.cleaned_data["slack_url"])
        super().save_model(request, obj, form, change)

    def secrets_set(self, form: Any) -> tuple[str, ...]:
        """Return the secret's column if the form sets it."""
        return ("encrypted_secret",) if form.cleaned_data.get("slack_url") else ()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Answer with a webhook's signing secret, this once."""
        if secret := getattr(obj, "issued_secret", None):
            return self._show_once(request, obj, secret)
        return self.back_to(obj)

    def _show_once(self, request: HttpRequest, destination: Destination, secret: str) -> HttpResponse:
        return self.page(
            request, "control_plane/signing_secret_once.html", "The signing secret", destination, secret=secret
        )

    # --- Trying it, and its secret

    def has_send_test_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may send a test."""
        return self._may_change(request, object_id) is not None

    def has_new_secret_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may have a new signing secret, and there is one to replace."""
        row = self._may_change(request, object_id)
        return row is not None and row.channel == Destination.Channel.WEBHOOK

    def has_messages_sent_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may see what was sent."""
        return may(user_of(request), Action.VIEW, "alerts.delivery")

    def _may_change(self, request: HttpRequest, object_id: str) -> Any:
        row = self.get_object(request, object_id)
        return row if row is not None and self.has_change_permission(request, row) else None

    @detail_action("Send a test", permission="send_test", icon="send")
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send a test, and say what became of it."""
        if not self.has_send_test_permission(request, object_id):
            raise PermissionDenied
        row = self.row_for(request, object_id, Action.CHANGE)
        if request.method == "POST":
            try:
                outcome = try_out(row, actor_of(request))
            except TooManyTrials:
                messages.error(request, f"{MOST_TRIALS} tests were sent in the last ten minutes. Wait a little.")
            else:
                say = messages.success if outcome.arrived else messages.error
                verdict = "The test has arrived." if outcome.arrived else "The test has not arrived."
                say(request, f"{verdict} {outcome.said}")
            return self.back_to(row)
        text = "A message that says it is a test goes there now, as alerts do. It can take up to ten seconds."
        return self.ask(request, row, Question(f"Send a test to {row}?", text, "Send a test"))

    @detail_action("New signing secret", permission="new_secret", icon="autorenew")
    def new_secret(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Replace the signing secret by a new one, which is shown once."""
        if not self.has_new_secret_permission(request, object_id):
            raise PermissionDenied
        row = self.row_for(request, object_id, Action.CHANGE)
        if request.method == "POST":
            shown = _done(request, lambda: self._show_once(request, row, renew_secret(row, actor_of(request))))
            return shown or self.back_to(row)
        text = "The new secret is shown once. For 24 hours messages are signed with the old one as well."
        return self.ask(request, row, Question(f"A new signing secret for {row}?", text, "Make the new secret"))

    @detail_action("Messages", permission="messages_sent", icon="outbox")
    def messages_sent(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go to the messages of a destination."""
        return HttpResponseRedirect(_deliveries_of(self.row_for(request, object_id, Action.VIEW)))


@admin.register(Delivery)
class DeliveryAdmin(ScopedAdmin):
    """Each message that went to a destination, or did not."""

    list_display = ["created", "destination_name", "current_state", "attempts", "outcome", "sent_at"]
    list_filter = ["state", "destination", OrganizationFilter]
    search_fields = ["id", "destination_name"]
    sortable_by = ()
    readonly_fields = (
        "id",
        "destination_name",
        "current_state",
        "outcome",
        "attempts",
        "due_at",
        "next_at",
        "sent_at",
        "alerts_in_it",
    )
    fields = readonly_fields
    actions_detail = ["send_again"]

    @admin.display(description="Due")
    def created(self, delivery: Delivery) -> str:
        """Return when it was to be sent."""
        return moment(delivery.due_at)

    @badge("State", DELIVERY_COLOURS)
    def current_state(self, delivery: Delivery) -> str:
        """Return what became of it."""
        return delivery.state

    @admin.display(description="Alerts in it")
    def alerts_in_it(self, delivery: Delivery) -> str:
        """Return links to what it tells."""
        rows = ((reverse("admin:audit_alert_change", args=[one.pk]), one.title) for one in delivery.alerts.all())
        return format_html_join("", '<div><a class="text-link" href="{}">{}</a></div>', rows)

    def has_send_again_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may have it tried again, and it has failed."""
        row = self.get_object(request, object_id)
        return row is not None and row.state == Delivery.State.FAILED and may_retry(user_of(request), row)

    @detail_action("Try again", permission="send_again", icon="replay")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have a message that failed tried again."""
        if not self.has_send_again_permission(request, object_id):
            raise PermissionDenied
        row = self.row_for(request, object_id, Action.VIEW)
        if request.method == "POST":
            retry(row, actor_of(request))
            messages.success(request, "It is tried again in a moment. Open this page anew to see what became of it.")
            return self.back_to(row)
        text = "The message is sent again as it is, with the same id."
        return self.ask(request, row, Question("Try this message again?", text, "Try again"))


def _deliveries_of(destination: Destination) -> str:
    return f"{reverse('admin:alerts_delivery_changelist')}?destination__id__exact={destination.pk}"
