"""Every address that Django serves, and what is tried at each.

The addresses come from the resolver, what a page has (fields, filters, inlines, actions) from the admin's registry,
what a route takes from its serializer. Each address has a class in `SITE`, `PAGES`, `API` or `OTHERS`; one without
fails the matrix, so a new page or route has to say what can be tried at it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db import models
from django.forms import ModelChoiceField
from django.urls import get_resolver, reverse
from rest_framework.relations import RelatedField

from apps.gateway.subjects import KINDS
from apps.orgs.rest.fields import Reference
from tests.admin.cast import House, unique
from tests.api.cast import Cast as ApiCast
from tests.api.collections import ORDERS, SAMPLES

POLICY_FIELDS: dict[str, dict[str, str]] = {
    "model_restriction": {"allow": "sim-*"},
    "rate_limit": {"requests": "5", "per": "minute"},
    "cost_cap": {"limit_usd": "5", "per": "month", "fit": "refuse", "hard": "on"},
    "guardrail": {"direction": "both", "detector_email": "block", "unscannable": "block"},
    "request_limits": {"max_input_tokens": "100"},
}
SECRET_COLUMNS = {"password", "digest", "encrypted_secret", "prompt_hash", "response_hash"}


@dataclass(frozen=True)
class Visit:
    """One request."""

    method: str
    url: str
    data: Mapping[str, Any] = field(default_factory=dict)
    answers: frozenset[int] | None = None
    """Which statuses there may be; ``None``: any that is no fault of the server."""


@dataclass(frozen=True)
class Address:
    """One entry of the resolver."""

    route: str
    name: str
    view: Any

    @property
    def collection(self) -> str:
        """The first part of a route of the API."""
        return self.route.removeprefix("v1/admin/").strip("^$").partition("/")[0]

    @property
    def model(self) -> Any:
        """The model whose page it is."""
        return next((m for m in admin.site._registry if self.route.startswith(_folder(m))), None)

    @property
    def kind(self) -> str:
        """Its class: of a page of the admin the last part of its name, of a route the names of its actions."""
        if self.route.startswith("v1/admin/"):
            actions = getattr(self.view, "actions", None)
            return "+".join(sorted(set(actions.values()))) if actions else self.view.cls.__name__
        if self.route.startswith("admin/"):
            return self._page()
        return self.route

    def _page(self) -> str:
        if self.model is None:
            return self.name or "catch_all"
        page = self.name.removeprefix(f"{self.model._meta.app_label}_{self.model._meta.model_name}_") or "object"
        return f"{page} of a subject" if "<str:subject>" in self.route else page


def addresses() -> list[Address]:
    """Return everything that the resolver knows."""
    return list(_walk(get_resolver().url_patterns, ""))


def _walk(patterns: Iterable[Any], before: str) -> Iterator[Address]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _walk(pattern.url_patterns, route)
        else:
            yield Address(route, pattern.name or "", pattern.callback)


def _folder(model: Any) -> str:
    return f"admin/{model._meta.app_label}/{model._meta.model_name}/"


_KINDS = {
    "actor": "user",
    "api_key": "apikey",
    "credential": "providercredential",
    "key": "apikey",
    "object_id": "application",
    "request_id": "requestrecord",
}


@dataclass
class Neighbours:
    """The one who looks, and the one who must not be seen, each with one of everything."""

    home: House
    foreign: House
    taken: str
    """A name that the other one uses for one thing of each kind."""
    own: dict[str, list[models.Model]]
    theirs: dict[str, list[models.Model]]
    api: ApiCast

    def foreign_pk(self, label: str) -> str:
        """Return the id of a row of the other organization; of a model that has none, the organization's."""
        return str(self.theirs.get(label, self.theirs["orgs.organization"])[0].pk)

    def home_pk(self, label: str) -> str:
        """Return the id of one's own row."""
        return str(self.own.get(label, self.own["orgs.organization"])[0].pk)

    def named(self, parameter: str) -> str:
        """Return what a parameter of that name could say of the other organization: an id of the kind, or its word."""
        label = next((label for label in self.theirs if label.endswith(f".{_KINDS.get(parameter, parameter)}")), None)
        return self.foreign_pk(label) if label else self.foreign.marker

    @property
    def foreign_ids(self) -> dict[str, str]:
        """An id of each kind."""
        return {label: str(rows[0].pk) for label, rows in self.theirs.items()}


# --- The admin's pages of a model

GONE = frozenset({302, 403, 404})
"""What is answered for a row out of reach."""


def _of_a_row(page: str) -> Callable[[Neighbours, Any, Any], Iterator[Visit]]:
    def visits(both: Neighbours, model: Any, _client: Any) -> Iterator[Visit]:
        label = model._meta.label_lower
        for pk in [str(row.pk) for row in both.theirs.get(label, [])[:2]]:
            url = _page(model, page, pk)
            yield Visit("GET", url, answers=GONE)
            yield Visit("POST", url, {"post": "yes", "name": "taken over", "grace": "0", "reason": "x"}, answers=GONE)
        if label in both.own:
            yield Visit("GET", _page(model, page, both.home_pk(label)))

    return visits


def _object(both: Neighbours, model: Any, _client: Any) -> Iterator[Visit]:
    for pk in (both.foreign_pk(model._meta.label_lower), both.home_pk(model._meta.label_lower)):
        yield Visit("GET", f"/{_folder(model)}{pk}/", answers=GONE)


def _change(both: Neighbours, model: Any, client: Any) -> Iterator[Visit]:
    yield from _of_a_row("change")(both, model, client)
    label = model._meta.label_lower
    if label in both.own and "change" in model._meta.default_permissions:
        url = _page(model, "change", both.home_pk(label))
        yield from _submissions(both, client, url, {}, _inlines(model))


def _add(both: Neighbours, model: Any, client: Any) -> Iterator[Visit]:
    url, prefilled = _page(model, "add"), {f.name: both.foreign_pk(_target(f)) for f in _relations(model)}
    kinds = [{"kind": kind} for kind in POLICY_FIELDS] if model._meta.label == "policies.Policy" else [{}]
    for kind in kinds:
        address = f"{url}?{urlencode(kind)}"
        yield Visit("GET", f"{url}?{urlencode(kind | prefilled)}")
        if kind == kinds[0]:  # every kind of policy has the same choices of what it stands on
            yield from _submissions(both, client, address, POLICY_FIELDS.get(kind.get("kind", ""), {}), ())


def _submissions(
    both: Neighbours, client: Any, url: str, given: dict[str, str], inlines: Iterable[Any]
) -> Iterator[Visit]:
    """Give the form as it would be accepted, with one thing of the other organization in it at a time."""
    page = client.get(url)
    if page.status_code != 200 or "adminform" not in (page.context or {}):
        yield Visit("POST", url, {"name": "taken over"})
        return
    form = page.context["adminform"].form
    data = {**_filled(form, both), **given, **_inline_values(page)}
    for name, choice in form.fields.items():
        if isinstance(choice, ModelChoiceField):
            label = choice.queryset.model._meta.label_lower
            chosen = {"applies_to": _LEVELS[name]} if name in _LEVELS and "applies_to" in form.fields else {}
            chosen |= {"owner": "user"} if "owner" in form.fields and name == "user" else {}
            yield Visit("POST", url, {**data, **chosen, name: both.foreign_pk(label)})
        elif name in ("name", "username", "model"):
            yield Visit("POST", url, {**data, name: both.taken})
    for prefix in (formset.formset.prefix for formset in page.context["inline_admin_formsets"]):
        yield from _in_inlines(both, url, data, prefix, inlines)


_LEVELS = {"organization": "organization", "application": "application", "user": "user", "api_key": "key"}


def _in_inlines(
    both: Neighbours, url: str, data: dict[str, str], prefix: str, inlines: Iterable[Any]
) -> Iterator[Visit]:
    for inline in inlines:
        new = {f"{prefix}-TOTAL_FORMS": "99", f"{prefix}-98-role": "developer"}
        for relation in _relations(inline.model):
            yield Visit(
                "POST", url, {**data, **new, f"{prefix}-98-{relation.name}": both.foreign_pk(_target(relation))}
            )
        theirs = both.foreign_pk(inline.model._meta.label_lower)
        yield Visit("POST", url, {**data, f"{prefix}-0-id": theirs, f"{prefix}-0-DELETE": "on"})


def _inline_values(page: Any) -> dict[str, str]:
    values: dict[str, Any] = {}
    for formset in page.context["inline_admin_formsets"]:
        values |= _values(formset.formset.management_form)
        for form in formset.formset.forms:
            values |= _values(form)
    return values


def _filled(form: Any, both: Neighbours) -> dict[str, str]:
    """Return what the form holds, and what it lacks as a person would fill it in."""
    values = _values(form)
    for name, one in form.fields.items():
        if values.get(name) or name in ("is_superuser", "expires_at"):
            continue
        if isinstance(one, ModelChoiceField):
            own = one.queryset.filter(pk__in=[row.pk for row in both.own.get(one.queryset.model._meta.label_lower, [])])
            values[name] = str(getattr(own.first(), "pk", ""))
        elif hasattr(one, "choices"):
            values[name] = next((str(value) for value, _ in one.choices if value), "")
        elif name in ("name", "username", "model"):
            values[name] = unique("mine")
        elif name == "recipients":
            values[name] = "ops@example.com"
    return values | ({"secret": "sk-0123456789abcdef"} if "secret" in form.fields else {})


def _values(form: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for bound in form:
        value = bound.value()
        if widgets := getattr(bound.field.widget, "widgets", None):
            parts = bound.field.widget.decompress(value)
            names = [f"{bound.html_name}_{n}" for n in range(len(widgets))]
            values |= {name: "" if part is None else str(part) for name, part in zip(names, parts, strict=True)}
        elif value is not None and value is not False:
            values[bound.html_name] = "on" if value is True else value if isinstance(value, list) else str(value)
    return values


def _changelist(both: Neighbours, model: Any, _client: Any) -> Iterator[Visit]:
    url, page = _page(model, "changelist"), admin.site._registry[model]
    yield Visit("GET", url)
    for term in (both.foreign.marker, both.foreign_pk(model._meta.label_lower)):
        yield Visit("GET", f"{url}?{urlencode({'q': term})}")
    yield from (Visit("GET", f"{url}?{urlencode(query)}") for query in _filters(both, model, page))
    for lookup in _probes(model):
        yield Visit("GET", f"{url}?{urlencode({lookup: 'a'})}", answers=frozenset({302, 400, 403}))
    for action in ["delete_selected", *[getattr(a, "__name__", a) for a in page.actions or ()]]:
        chosen = {"action": action, "_selected_action": both.foreign_pk(model._meta.label_lower), "post": "yes"}
        yield Visit("POST", url, chosen)


def _filters(both: Neighbours, model: Any, page: Any) -> Iterator[dict[str, str]]:
    """Give queries with what is the other organization's: of the filters, and of relations that are no filter."""
    related = {}
    for name in getattr(page, "searched_by", ()):
        yield {name: both.named(name)}
    for entry in page.list_filter:
        name = entry[0] if isinstance(entry, tuple) else entry
        if not isinstance(name, str):
            yield {name.parameter_name: both.named(name.parameter_name)}
        elif (relation := _follow(model, name)) is not None:
            related[f"{name}__id__exact"] = both.foreign_pk(relation)
    if related:
        yield related
    for relation in _relations(model):
        if f"{relation.name}__id__exact" not in related:
            yield {f"{relation.name}__id__exact": both.foreign_pk(_target(relation))}
    yield {"id__exact": both.foreign_pk(model._meta.label_lower)}


def _follow(model: Any, path: str) -> str | None:
    for name in path.split("__"):
        step = model._meta.get_field(name)
        if not step.is_relation:
            return None
        model = step.related_model
    return str(model._meta.label_lower)


def _probes(model: Any) -> Iterator[str]:
    """Give lookups that would tell, letter by letter, what no page shows."""
    for step in model._meta.get_fields():
        if getattr(step, "is_relation", False) and step.related_model is not None:
            for column in step.related_model._meta.concrete_fields:
                if column.name in {*SECRET_COLUMNS, "email", "name", "username"}:
                    yield f"{step.name}__{column.name}__startswith"
        elif step.name in SECRET_COLUMNS:
            yield f"{step.name}__startswith"


def _explain(both: Neighbours, _model: Any, _client: Any) -> Iterator[Visit]:
    labels = {"application": "orgs.application", "user": "orgs.user", "key": "orgs.apikey"}
    for kind in KINDS:
        foreign = reverse("admin:policies_policy_explain", args=[kind, both.foreign_pk(labels[kind])])
        own = reverse("admin:policies_policy_explain", args=[kind, both.home_pk(labels[kind])])
        there = urlencode({"organization": both.foreign_pk("orgs.organization")})
        yield Visit("GET", foreign, answers=GONE)
        yield Visit("POST", foreign, {"model": "sim-echo", "text": "x"}, answers=GONE)
        yield Visit("GET", own)
        yield Visit("GET", f"{own}?{there}")


def _templates(both: Neighbours, _model: Any, _client: Any) -> Iterator[Visit]:
    theirs, own = (
        reverse("admin:policies_policy_templates", args=[pk("orgs.organization")])
        for pk in (both.foreign_pk, both.home_pk)
    )
    chosen = {"use_models": "on", "models_allow": "sim-*"}
    yield Visit("GET", theirs, answers=GONE)
    yield Visit("POST", theirs, chosen, answers=GONE)
    yield Visit("POST", theirs, {"preview": "1"}, answers=GONE)
    yield Visit("GET", own)
    yield Visit("POST", own, {**chosen, "application": both.foreign_pk("orgs.application")})


def _describe(both: Neighbours, _model: Any, _client: Any) -> Iterator[Visit]:
    """The sentence of a form, with what is the other organization's in each of its choices."""
    url = f"{reverse('admin:policies_policy_describe')}?kind=rate_limit"
    said = {"requests": "5", "per": "minute", "mode": "enforce"}
    labels = {"application": "orgs.application", "user": "orgs.user", "api_key": "orgs.apikey"}
    for name, label in {**labels, "organization": "orgs.organization"}.items():
        yield Visit("POST", url, {**said, "applies_to": _LEVELS[name], name: both.foreign_pk(label)})
    yield Visit("POST", url, said)


PAGES: dict[str, Callable[[Neighbours, Any, Any], Iterator[Visit]]] = {
    "changelist": _changelist,
    "add": _add,
    "change": _change,
    "object": _object,
    **{
        page: _of_a_row(page)
        for page in (
            "delete",
            "history",
            "set_up",
            "suspend",
            "activate",
            "new_key",
            "try_out",
            "test",
            "rotate_key",
            "revoke_key",
            "explain",
            "usage",
            "set_password",
            "changes",
            "send_test",
            "new_secret",
            "messages_sent",
            "send_again",
            "cancel",
            "download",
            "draft",
            "restore",
        )
    },
    "describe": _describe,
    "explain of a subject": _explain,
    "templates": _templates,
}
"""What is tried at each page of a model, by the end of its name."""


ADMIN_PAGES_THAT_WRITE = (
    PAGES.keys()
    - {"changelist", "add", "object", "history", "new_key", "changes", "messages_sent"}
    - {"set_up", "try_out", "templates"}
    - {
        "explain",
        "explain of a subject",
        "usage",
        "describe",
    }
)
"""The pages of a row on which something is done to it."""


def _inlines(model: Any) -> Iterable[Any]:
    return admin.site._registry[model].inlines


def _relations(model: Any) -> list[Any]:
    return [f for f in model._meta.concrete_fields if f.is_relation and f.related_model._meta.app_label != "auth"]


def _target(relation: Any) -> str:
    return str(relation.related_model._meta.label_lower)


def _page(model: Any, page: str, pk: str | None = None) -> str:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    return reverse(name, args=[pk] if pk else [])


# --- The admin's own pages


def _index(both: Neighbours) -> Iterator[Visit]:
    yield Visit("GET", "/admin/")


def _usage_page(both: Neighbours) -> Iterator[Visit]:
    yield Visit("GET", "/admin/usage/?period=30d")
    for name in ("organization", "application", "user"):
        for pk in (both.foreign_pk(f"orgs.{name}"), both.home_pk(f"orgs.{name}")):
            yield Visit("GET", f"/admin/usage/?{urlencode({name: pk})}")


def _search(both: Neighbours) -> Iterator[Visit]:
    for term in ("a", both.foreign.marker, "FOREIGN"):
        yield Visit("GET", f"/admin/search/?{urlencode({'s': term, 'extended': '1'})}")


def _autocomplete(both: Neighbours) -> Iterator[Visit]:
    for page in admin.site._registry.values():
        for model in (page.model, *(inline.model for inline in page.inlines)):
            for relation in _relations(model):
                opts = model._meta
                of = {"app_label": opts.app_label, "model_name": opts.model_name, "field_name": relation.name}
                for term in ("", "FOREIGN", both.foreign.marker):
                    yield Visit("GET", f"/admin/autocomplete/?{urlencode(of | {'term': term})}")


def _app_lists(both: Neighbours) -> Iterator[Visit]:
    for app in ("orgs", "policies", "audit", "gateway", "alerts"):
        yield Visit("GET", f"/admin/{app}/")


def _catch_all(both: Neighbours) -> Iterator[Visit]:
    for pk in both.foreign_ids.values():
        yield Visit("GET", f"/admin/{pk}/")


def _only(path: str, *, posted: Mapping[str, str] | None = None) -> Callable[[Neighbours], Iterator[Visit]]:
    def visits(both: Neighbours) -> Iterator[Visit]:
        yield Visit("GET", path)
        if posted is not None:
            yield Visit("POST", path, posted)

    return visits


def _login(both: Neighbours) -> Iterator[Visit]:
    yield Visit("POST", "/admin/login/", {"username": f"user-{both.foreign.marker}", "password": "guessed wrong"})
    yield Visit("GET", f"/admin/login/?{urlencode({'next': f'/admin/orgs/apikey/{both.foreign.key.pk}/change/'})}")


def _setup(both: Neighbours) -> Iterator[Visit]:
    theirs, own = (reverse("admin:setup", args=[pk("orgs.organization")]) for pk in (both.foreign_pk, both.home_pk))
    yield Visit("GET", theirs, answers=GONE)
    for step in ("application", "provider", "key"):
        said = {f"{step}-name": "taken over", "provider-provider": "simulated", "step": step}
        yield Visit("POST", theirs, said | {"key-application": both.foreign_pk("orgs.application")}, answers=GONE)
    yield Visit("GET", own)
    yield Visit("POST", own, {"step": "application", "application-name": both.taken})
    of_theirs = {"key-application": both.foreign_pk("orgs.application"), "key-name": "x"}
    yield Visit("POST", own, {"step": "key", **of_theirs})


def _playground(both: Neighbours) -> Iterator[Visit]:
    yield Visit("GET", reverse("admin:playground"))
    yield Visit(
        "GET", f"{reverse('admin:playground')}?{urlencode({'application': both.foreign_pk('orgs.application')})}"
    )


def _playground_ask(both: Neighbours) -> Iterator[Visit]:
    url, said = reverse("admin:playground_ask"), {"model": "sim-echo", "message": "x", "max_tokens": "5"}
    yield Visit("GET", url)
    yield Visit(
        "POST", url, {**said, "application": both.foreign_pk("orgs.application")}, answers=frozenset({302, 400, 403})
    )
    own = {"application": both.home_pk("orgs.application")}
    # Of a name of the other's, as at the door for inference: what one asks for stands in one's own records.
    yield Visit("POST", url, {**said, **own, "model": both.taken})


UNSEEN = frozenset({204, 302, 403})
"""What is answered of a record out of reach, as of one that is not written yet."""


def _playground_outcome(both: Neighbours) -> Iterator[Visit]:
    yield Visit(
        "GET", reverse("admin:playground_outcome", args=[both.foreign_pk("audit.requestrecord")]), answers=UNSEEN
    )
    yield Visit("GET", reverse("admin:playground_outcome", args=[both.home_pk("audit.requestrecord")]))


SITE: dict[str, Callable[[Neighbours], Iterator[Visit]]] = {
    "index": _index,
    "setup": _setup,
    "playground": _playground,
    "playground_ask": _playground_ask,
    "playground_outcome": _playground_outcome,
    "search": _search,
    "usage": _usage_page,
    "autocomplete": _autocomplete,
    "app_list": _app_lists,
    "catch_all": _catch_all,
    "login": _login,
    "password_change": _only("/admin/password_change/", posted={"old_password": "not it"}),
    "password_change_done": _only("/admin/password_change/done/"),
    "jsi18n": _only("/admin/jsi18n/"),
    "logout": _only("/admin/logout/"),
}
"""What is tried at the pages that are no model's. Logging out is asked for and not done: a session serves all tests."""


# --- The API


def _base(address: Address) -> str:
    return "/" + re.sub(r"[$^]", "", address.route).partition("/(?P<id>")[0]


def _label(address: Address) -> str:
    return str(address.view.cls.model._meta.label_lower)


def _list(both: Neighbours, address: Address) -> Iterator[Visit]:
    base, filters = _base(address), address.view.cls.filters
    yield Visit("GET", base)
    for name, one in filters.items():
        if not one.choices:
            yield Visit("GET", f"{base}?{urlencode({name: both.named(name)})}")
    yield Visit("GET", f"{base}?{urlencode({'metadata.ticket': f'ticket {both.foreign.marker}'})}")


def _create(both: Neighbours, address: Address) -> Iterator[Visit]:
    sample = next(one for one in [*SAMPLES, *ORDERS] if address.route.endswith(f"^{one.path}$"))
    body = sample.body(both.api) | _OF_AN_ADMIN.get(sample.path, lambda _: {})(both)
    yield from (Visit("POST", _base(address), said) for said in _bodies(both, address, body))


_OF_AN_ADMIN: dict[str, Callable[[Neighbours], dict[str, str]]] = {
    "users": lambda both: {"organization": both.home_pk("orgs.organization"), "role": "developer"}
}
"""What an organization's admin has to say besides."""


def _bodies(both: Neighbours, address: Address, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a body that would be accepted, with one thing of the other organization in it at a time."""
    for name, one in address.view.cls.serializer_class().fields.items():
        if isinstance(one, Reference | RelatedField) and not one.read_only:
            yield {**_without_rival(body, name), name: both.foreign_pk(getattr(one, "model")._meta.label_lower)}  # noqa: B009
        elif name in ("name", "username", "model"):
            yield {**body, name: both.taken}


def _without_rival(body: dict[str, Any], name: str) -> dict[str, Any]:
    rival = {"user": "application", "application": "user"}.get(name)
    return {key: value for key, value in body.items() if key != rival}


def _one(method: str) -> Callable[[Neighbours, Address], Iterator[Visit]]:
    def visits(both: Neighbours, address: Address) -> Iterator[Visit]:
        label, end = _label(address), address.route.partition("[^/.]+)")[2].rstrip("$")
        answers = frozenset({401, 403, 404})
        for row in both.theirs.get(label, [])[:2]:
            yield Visit(method, f"{_base(address)}/{row.pk}{end}", {"name": "taken over"}, answers=answers)

    return visits


def _change_by(method: str) -> Callable[[Neighbours, Address], Iterator[Visit]]:
    def visits(both: Neighbours, address: Address) -> Iterator[Visit]:
        yield from _one(method)(both, address)
        if _label(address) in both.own:
            own = f"{_base(address)}/{both.home_pk(_label(address))}"
            yield from (Visit(method, own, said) for said in _bodies(both, address, {}))

    return visits


def _read_own(both: Neighbours, address: Address) -> Iterator[Visit]:
    yield from _one("GET")(both, address)
    end = address.route.partition("[^/.]+)")[2].rstrip("$")
    if _label(address) in both.own:
        yield Visit("GET", f"{_base(address)}/{both.home_pk(_label(address))}{end}")


def _evaluate(both: Neighbours, address: Address) -> Iterator[Visit]:
    for said in _subjects(both):
        yield Visit("POST", _base(address), {**said, "model": "sim-echo"})
    own = {"application": both.home_pk("orgs.application")}
    yield Visit("POST", _base(address), {**own, "model": f"model-{both.foreign.marker}"})


def _effective(both: Neighbours, address: Address) -> Iterator[Visit]:
    yield from (Visit("GET", f"{_base(address)}?{urlencode(said)}") for said in _subjects(both))


def _subjects(both: Neighbours) -> Iterator[dict[str, str]]:
    labels = {"application": "orgs.application", "user": "orgs.user", "key": "orgs.apikey"}
    for kind, label in labels.items():
        yield {kind: both.foreign_pk(label)}
        yield {kind: both.home_pk(label), "organization": both.foreign_pk("orgs.organization")}


def _usage(both: Neighbours, address: Address) -> Iterator[Visit]:
    base = _base(address)
    for group in ("", "model", "application", "user", "day", "status"):
        yield Visit("GET", f"{base}?{urlencode({'group_by': group})}" if group else base)
    for name in ("organization", "application", "user"):
        yield Visit("GET", f"{base}?{urlencode({name: both.foreign_pk(f'orgs.{name}')})}")
    yield Visit("GET", f"{base}?{urlencode({'model': f'asked-{both.foreign.marker}'})}")


def _nothing_there(both: Neighbours, address: Address) -> Iterator[Visit]:
    yield Visit("GET", f"/v1/admin/{both.foreign.organization.pk}")


API: dict[str, tuple[Callable[[Neighbours, Address], Iterator[Visit]], ...]] = {
    "list": (_list,),
    "create+list": (_list, _create),
    "retrieve": (_read_own,),
    "destroy+partial_update+retrieve+update": (_read_own, _change_by("PUT"), _change_by("PATCH"), _one("DELETE")),
    "replace": (_one("POST"),),
    "revoke": (_one("POST"),),
    "test": (_one("POST"),),
    "renew": (_one("POST"),),
    "again": (_one("POST"),),
    "cancel": (_one("POST"),),
    "download": (_read_own,),
    "versions": (_read_own,),
    "discard_draft+draft+keep_draft": (_read_own, _one("PUT"), _one("DELETE")),
    "publish": (_one("POST"),),
    "rollback": (_one("POST"),),
    "decision": (_read_own,),
    "explanation": (_read_own,),
    "PolicyEvaluation": (_evaluate,),
    "EffectivePolicies": (_effective,),
    "Usage": (_usage,),
    "NotFound": (_nothing_there,),
}
"""What is tried at each route, by the names of its actions or of its view."""


# --- What is neither


def _chat(both: Neighbours) -> Iterator[Visit]:
    # Of a name of the other's: that one asked for it is one's own to see, and stands in one's own records.
    message = {"messages": [{"role": "user", "content": "Hello"}]}
    yield Visit("POST", "/v1/chat/completions", {"model": both.taken, **message})


def _model(both: Neighbours) -> Iterator[Visit]:
    yield Visit("GET", f"/v1/models/{both.taken}")
    yield Visit("GET", f"/v1/models/{both.foreign.marker}")


OTHERS: dict[str, Callable[[Neighbours], Iterator[Visit]]] = {
    "": _only("/"),
    "metrics": _only("/metrics"),
    "v1/admin": _only("/v1/admin"),
    "v1/chat/completions": _chat,
    "v1/models": _only("/v1/models"),
    "v1/models/<path:model>": _model,
    "v1/openapi.json": _only("/v1/openapi.json"),
    "v1/docs": _only("/v1/docs"),
    "oauth2/login": _only("/oauth2/login"),
    "oauth2/idpresponse": _only("/oauth2/idpresponse"),
}
"""What is tried at the addresses that are neither the admin's nor the admin API's, by their route."""


def unclassified() -> list[str]:
    """Name every address for which nothing is tried."""
    return [address.route for address in addresses() if address.kind not in _table(address)]


def _table(address: Address) -> Mapping[str, Any]:
    if address.route.startswith("v1/admin/"):
        return API
    if not address.route.startswith("admin/"):
        return OTHERS
    return SITE if address.model is None else PAGES
