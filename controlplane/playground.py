"""The playground: a request in an application's name, sent from the admin, and what became of it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.audit.admin import STATUS_COLOURS
from apps.audit.models import RequestRecord, Status
from apps.audit.values import uuid_or_none
from apps.gateway.playground import applications_to_try, may_try, send, usable_models
from apps.gateway.streaming import AnswerStream
from apps.gateway.views import StreamBytes
from apps.gateway.why import why
from apps.orgs.models import Application, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import user_of
from apps.orgs.scoping import may, visible
from controlplane.pages import client_of

if TYPE_CHECKING:
    from django.forms import CheckboxInput, NumberInput, Select, Textarea, TextInput
else:
    from unfold.widgets import UnfoldAdminIntegerFieldWidget as NumberInput
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput
    from unfold.widgets import UnfoldBooleanSwitchWidget as CheckboxInput

MOST_CHARACTERS = 100_000
MOST_TOKENS = 100_000
MARK = {"sent_from": "playground"}
"""The metadata of its requests, by which their records are found."""
BUSY = "Other test requests are under way, as many as this server takes at once. Try again in a moment."


class PlaygroundForm(forms.Form):
    """A request to send."""

    application = forms.ModelChoiceField(
        queryset=Application.objects.none(),
        empty_label=None,
        widget=Select(),
        help_text="The request is made in its name: its policies and budgets hold, and yours.",
    )
    model = forms.CharField(max_length=256, widget=TextInput(attrs={"list": "models", "autocomplete": "off"}))
    system = forms.CharField(
        label="Instructions", required=False, max_length=MOST_CHARACTERS, widget=Textarea(attrs={"rows": 2})
    )
    message = forms.CharField(max_length=MOST_CHARACTERS, initial="Hello", widget=Textarea(attrs={"rows": 4}))
    max_tokens = forms.IntegerField(
        label="Most tokens of the answer", initial=500, min_value=1, max_value=MOST_TOKENS, widget=NumberInput()
    )
    stream = forms.BooleanField(
        label="Show the answer as it comes", required=False, initial=True, widget=CheckboxInput()
    )

    def __init__(self, person: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = applications_to_try(person).order_by("organization__name", "name")
        shown = self.initial.get("application")
        if person.is_superuser and shown is not None:  # to whom every application of the platform would be offered
            choices = choices.filter(organization=shown.organization)
        field: Any = self.fields["application"]
        field.queryset = choices
        several = person.is_superuser or len(person.roles()) > 1
        field.label_from_instance = lambda row: f"{row} ({row.organization})" if several else str(row)

    def request(self) -> dict[str, Any]:
        """Return the request's body."""
        said = self.cleaned_data
        system = [{"role": "system", "content": said["system"]}] if said["system"] else []
        body: dict[str, Any] = {
            "model": said["model"],
            "messages": [*system, {"role": "user", "content": said["message"]}],
            "max_completion_tokens": said["max_tokens"],
            "metadata": MARK,
        }
        return body | ({"stream": True} if said["stream"] else {})


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the form, for the application that the address names or the first one."""
    person = _person(request)
    rows = applications_to_try(person)
    named = uuid_or_none(request.GET.get("application", ""))
    application = (rows.filter(pk=named).first() if named else None) or rows.order_by("created_at").first()
    models = usable_models(person, application) if application else []
    first = request.GET.get("model", "")[:256] or (models[0] if models else "")
    context = {
        **admin.site.each_context(request),
        "title": "Playground",
        "application": application,
        "form": PlaygroundForm(person, initial={"application": application, "model": first}),
        "models": models,
        "may_add_application": may(person, Action.ADD, "orgs.application"),
        "advice": None
        if models or not application
        else _advice("MODEL_NOT_ALLOWED", person, application.organization_id),
    }
    return TemplateResponse(request, "control_plane/playground.html", context)


@require_POST
def ask(request: HttpRequest) -> HttpResponseBase:
    """Send the request; answer as the gateway does, whole or as a stream."""
    person = _person(request)
    form = PlaygroundForm(person, request.POST)
    if not form.is_valid():
        fields = {name: " ".join(map(str, errors)) for name, errors in form.errors.items()}
        return _not_sent(400, "INVALID_FORM", "Look at what is marked. Nothing was sent.", fields)
    place = _Place.take()
    if place is None:
        return _not_sent(503, "BUSY", BUSY, {})
    try:
        return _answer(request, person, form, place)
    except BaseException:
        place.leave()
        raise


def _not_sent(status: int, code: str, message: str, fields: dict[str, str]) -> HttpResponse:
    """Answer in the gateway's shape that there was no request, and so there will be no record."""
    error = {"message": message, "type": "invalid_request_error", "code": code, "fields": fields}
    return JsonResponse({"error": error}, status=status, headers={"x-not-sent": "1"})


def _answer(request: HttpRequest, person: User, form: PlaygroundForm, place: "_Place") -> HttpResponseBase:
    client = client_of(request.META)
    gone: Callable[[], bool] = (lambda: client.gone) if client else (lambda: False)
    answer = send(person, form.cleaned_data["application"], form.request(), gone)
    response: HttpResponseBase
    if answer.stream is None:
        place.leave()
        response = HttpResponse(answer.body, status=answer.status)
    else:
        if client is not None:
            client.when_gone(_cancelling(answer.stream))
        response = StreamingHttpResponse(_Pieces(answer.stream, place), status=answer.status)
    for name, value in answer.headers:
        response[name] = value
    return response


def _cancelling(stream: AnswerStream) -> Callable[[], None]:
    return lambda: stream.close(Status.CANCELLED)


@require_GET
def outcome(request: HttpRequest, request_id: UUID) -> HttpResponse:
    """Show what the record of a request says, as a part of the page; nothing (204) while there is none."""
    person = _person(request)
    record = visible(RequestRecord.objects.filter(pk=request_id), person).first()
    if record is None:
        return HttpResponse(status=204)
    context = {
        "record": record,
        "why": why(record, person),
        "colour": STATUS_COLOURS[record.status],
        "advice": _advice(record.error_code, person, record.organization_id),
        "link": reverse("admin:audit_requestrecord_change", args=[record.pk]),
    }
    return TemplateResponse(request, "control_plane/playground_outcome.html", context)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a refusal, and where."""

    text: str
    link: str = ""
    button: str = ""


def _advice(code: str, person: User, organization_id: UUID) -> Advice | None:
    """Return what to do about an error; of who may not do it, whom to ask."""
    if code not in _ADVICE:
        return None
    right, text, page_of, button = _ADVICE[code]
    if not may(person, Action.ADD, right, organization_id):
        return Advice(f"{text} An admin of the organization can do that.")
    return Advice(text, page_of(organization_id), button)


def _templates(organization_id: UUID) -> str:
    return reverse("admin:policies_policy_templates", args=[organization_id])


def _list_of(name: str) -> Callable[[UUID], str]:
    return lambda organization_id: f"{reverse(f'admin:{name}_changelist')}?organization__id__exact={organization_id}"


_POLICY, _ROUTE, _CREDENTIAL = "policies.policy", "gateway.modelroute", "orgs.providercredential"
_ADVICE: dict[str, tuple[str, str, Callable[[UUID], str], str]] = {
    "MODEL_NOT_ALLOWED": (_POLICY, "Allow models with a policy.", _templates, "Choose policies"),
    "MODEL_NOT_FOUND": (
        _ROUTE,
        "Route the model to a provider, or choose one that is there.",
        _list_of("gateway_modelroute"),
        "Model routes",
    ),
    "BUDGET_EXCEEDED": (
        _POLICY,
        "Ask for a shorter answer, or raise the budget.",
        _list_of("policies_policy"),
        "Policies",
    ),
    "RATE_LIMIT_EXCEEDED": (_POLICY, "Wait, or raise the limit.", _list_of("policies_policy"), "Policies"),
    "PROVIDER_ERROR": (
        _CREDENTIAL,
        "Test the provider's credential.",
        _list_of("orgs_providercredential"),
        "Credentials",
    ),
}


class _Place:
    """A place among the test requests of this process: each holds a thread of the admin's pages to its end."""

    _free = threading.BoundedSemaphore(max(1, settings.PAGE_THREADS // 2))

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = False

    @classmethod
    def take(cls) -> "_Place | None":
        """Take a place; ``None`` if there is none."""
        return cls() if cls._free.acquire(blocking=False) else None

    def leave(self) -> None:
        """Give the place back. May be called any number of times."""
        with self._lock:
            left, self._left = self._left, True
        if not left:
            self._free.release()


class _Pieces:
    """A stream for the browser, with its place until it is closed."""

    def __init__(self, stream: AnswerStream, place: _Place) -> None:
        self._pieces = StreamBytes(stream)
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Settle what was used if it did not come to its end."""
        try:
            self._pieces.close()
        finally:
            self._place.leave()


def _person(request: HttpRequest) -> User:
    person = user_of(request)
    if not may_try(person):
        raise PermissionDenied
    return person
