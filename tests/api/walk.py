"""A walk through everything the OpenAPI document describes, with good and broken requests, by every role.

Each answer must be one that the document describes, never a failure of ours, and must hold nothing of another
organization. What was made is found, replaced, read, changed and deleted in later steps.
"""

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.test import Client
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from apps.audit.changes import state_of
from apps.audit.models import RequestRecord
from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Budget, Policy, Price
from tests.admin.cast import build_house
from tests.api.cast import NOBODYS_ID, Api, error_of, person, unique
from tests.api.described import JUNK, LINE, Document, Operation
from tests.gateway.house import PRICE

CONFIGS = {
    "rate_limit": {"requests": 5, "per": "minute"},
    "cost_cap": {"limit_usd": "5.00", "per": "month"},
    "model_restriction": {"allow": ["sim-*"]},
    "guardrail": {"detectors": {"email": "redact"}},
    "request_limits": {"max_output_tokens": 100},
}
MODELS = ["sim-echo", "sim-usage-3-4", "sim-stream-2", "sim-error-429", "sim-error-500", "nowhere"]
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"]), "content": st.text(max_size=40)}),
    min_size=1,
    max_size=3,
)
CHAT = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS), "messages": MESSAGES},
    optional={
        "stream": st.booleans(),
        "max_tokens": st.integers(1, 50),
        "temperature": st.floats(0, 2),
        "n": st.integers(1, 3),
        "user": LINE,
        "metadata": st.dictionaries(LINE, LINE, max_size=2),
        "stop": st.lists(LINE, max_size=2),
    },
)
REFERENCES = {"organization", "application", "user", "key", "credential", "policy", "api_key"}


def document() -> Document:
    return Document(Client().get("/v1/openapi.json").json())


class Walk(RuleBasedStateMachine):
    """One organization with everyone in it, beside another one that must not show."""

    steps: ClassVar[int] = 0
    statuses: ClassVar[dict[str, set[int]]] = {}

    @initialize()
    def move_in(self) -> None:
        self.document = document()
        names = list(self.document.operations)
        made = [name for name in names if name.startswith("POST")]
        self.often = names + made + [name for name in names if "/v1/admin/" not in name] * 4
        self.home, self.foreign = build_house("HOME"), build_house("FOREIGN")
        self.foreign_state = {row: state_of(row) for row in self.foreign.rows}
        organization, application = self.home.organization, self.home.application
        self.people = [person(organization, Role(role)) for role in ("admin", "developer", "auditor")]
        issued = keys.issue(organization=organization, application=application, name="of the application")
        self.application_key = Api(issued.text)
        Policy(
            organization=organization, name="models", kind="model_restriction", config=CONFIGS["model_restriction"]
        ).save()
        if not Price.objects.filter(**PRICE).exists():
            Price.objects.create(**PRICE)
        self.known = {_NAMES[type(row)]: [str(row.pk)] for row in self.home.rows if type(row) in _NAMES}
        self.known["membership"] = [str(self.home.user.memberships.get().pk)]
        self.seen_tags = ['"nothing"', "*"]
        self.foreign_ids = {_NAMES.get(type(row), ""): str(row.pk) for row in self.foreign.rows}

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        operation = self.document.operations[data.draw(st.sampled_from(self.often), label="operation")]
        inference = not operation.path.startswith("/v1/admin/")
        caller = self._caller(data, inference)
        path = self._path(data, operation)
        body = self._body(data, operation) if operation.method in {"POST", "PUT", "PATCH"} else None
        headers = self._headers(data, operation)
        answer = caller.call(operation.method, path, body, **headers)
        self._judge(operation, answer)
        if answer.status_code in {200, 201} and not inference:
            self._remember(operation, answer)
            if "Idempotency-Key" in headers:
                self._repeat(caller, operation, (path, body, headers), answer)

    # --- Requests

    def _caller(self, data: st.DataObject, inference: bool) -> Api:
        admin, *others = self.people
        callers = [self.application_key] * 4 + [admin] if inference else [admin] * 6 + others + [self.application_key]
        return callers[data.draw(st.sampled_from(range(len(callers))), label="caller")]

    def _ids(self, name: str) -> st.SearchStrategy[str]:
        own = self.known.get(name, [])
        return st.sampled_from([*own[-3:] * 2, *own[:1] * 3, self.foreign_ids.get(name, NOBODYS_ID), NOBODYS_ID])

    def _path(self, data: st.DataObject, operation: Operation) -> str:
        named = data.draw(self._ids(_SINGULAR.get(operation.collection, "")), label="id")
        path = operation.path.replace("{id}", named)
        query = {}
        for one in operation.parameters("query"):
            if data.draw(st.integers(0, 5)) == 0:
                good = (
                    self._ids(one["name"]) if one["name"] in REFERENCES else self.document.requests(one["schema"], {})
                )
                query[one["name"]] = data.draw(st.one_of(good, good, JUNK), label=one["name"])
        if data.draw(st.integers(0, 15)) == 0:
            query[data.draw(LINE)] = "1"
        return f"{path}?{urlencode(query, errors='replace')}" if query else path

    def _body(self, data: st.DataObject, operation: Operation) -> Any:
        if operation.path == "/v1/chat/completions":
            good: st.SearchStrategy[Any] = CHAT
        elif operation.body is None:
            return None
        else:
            known = {name: self._ids(name) for name in REFERENCES} | {"config": st.sampled_from([*CONFIGS.values()])}
            known |= {"name": LINE.map(unique), "username": LINE.map(unique)}
            good = self.document.requests(operation.body, known)
        body = data.draw(good, label="body")
        if operation.path == "/v1/admin/keys" and body.get("application") and data.draw(st.booleans()):
            body.pop("user", None)  # a key has one owner
        if "kind" in body:
            body["config"] = CONFIGS[body["kind"]]
        broken = data.draw(st.integers(0, 9))
        if broken == 0:
            return data.draw(st.one_of(st.binary(max_size=20), JUNK.map(lambda one: json.dumps(one).encode())))
        if broken <= 3 and body:
            field = data.draw(st.sampled_from(sorted(body)))
            return {**body, field: data.draw(JUNK)} if broken < 3 else {k: v for k, v in body.items() if k != field}
        return {**body, data.draw(LINE): 1} if broken == 4 else body

    def _headers(self, data: st.DataObject, operation: Operation) -> dict[str, str]:
        headers = {}
        names = {one["name"] for one in operation.parameters("header")}
        if "Idempotency-Key" in names and data.draw(st.booleans()):
            headers["Idempotency-Key"] = data.draw(st.sampled_from([unique("key"), unique("key"), "used", "no key"]))
        if "If-Match" in names and data.draw(st.integers(0, 3)) == 0:
            headers["If-Match"] = data.draw(st.sampled_from(self.seen_tags[-4:]))
        return headers

    # --- Answers

    def _judge(self, operation: Operation, answer: Any) -> None:
        type(self).steps += 1
        self.statuses.setdefault(str(operation), set()).add(answer.status_code)
        streamed = getattr(answer, "streaming", False)
        content = b"".join(answer.streaming_content) if streamed else answer.content
        assert answer.headers["x-request-id"]
        text = content.decode()
        assert self.foreign.marker not in text, operation
        assert not [one for one in self.foreign_ids.values() if one in text], operation
        if streamed:
            assert answer.status_code == 200
            return
        body = json.loads(content) if content else None
        assert answer.status_code < 500 or operation.path.startswith("/v1/chat"), (str(operation), content)
        assert answer.status_code != 500, (str(operation), content)
        if answer.status_code >= 400:
            error_of(answer, answer.status_code, body["error"]["code"])
        complaint = self.document.complaint(operation, answer.status_code, body)
        assert not complaint, (str(operation), answer.status_code, complaint)

    def _remember(self, operation: Operation, answer: Any) -> None:
        body = answer.json()
        if "ETag" in answer.headers:
            self.seen_tags.append(answer.headers["ETag"])
        if answer.status_code == 201:
            kind = _SINGULAR[operation.collection]
            self.known.setdefault(kind, []).append(body["id"])

    def _repeat(self, caller: Api, operation: Operation, sent: tuple[Any, ...], first: Any) -> None:
        path, body, headers = sent
        again = caller.call(operation.method, path, body, **headers)
        if operation.collection == "keys" and "key" in first.json():  # a policy names the key that it stands on
            assert error_of(again, 409, "CONFLICT")["details"] == {"id": first.json()["id"]}
        else:
            assert (again.status_code, again.content) == (first.status_code, first.content)

    def teardown(self) -> None:
        if hasattr(self, "foreign_state"):
            for row, before in self.foreign_state.items():
                assert state_of(type(row).objects.get(pk=row.pk)) == before


_NAMES = {
    Organization: "organization",
    Application: "application",
    ApiKey: "key",
    User: "user",
    Policy: "policy",
    ProviderCredential: "credential",
    ModelRoute: "route",
    Budget: "budget",
    RequestRecord: "audit-log",
}
_SINGULAR = {
    "audit-logs": "audit-log",
    "budgets": "budget",
    "organizations": "organization",
    "applications": "application",
    "keys": "key",
    "users": "user",
    "memberships": "membership",
    "policies": "policy",
    "provider-credentials": "credential",
    "routes": "route",
    "prices": "price",
    "saved-searches": "saved-search",
    "exports": "export",
}
