"""Schemathesis makes requests from the OpenAPI document and follows its links. The long form: `torture`."""

from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from apps.audit.changes import state_of
from apps.orgs.roles import Role
from tests.admin.cast import build_house
from tests.api.cast import person

pytestmark = pytest.mark.usefixtures("no_runtime_is_left")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def machine_of(role: Role) -> Any:
    """Return a machine whose scenarios are each a new person's in that role, beside an organization of others."""
    schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", get_wsgi_application())
    foreign = build_house("FOREIGN")

    def holds_nothing_foreign(_context: Any, response: Any, _case: Any) -> None:
        assert foreign.marker.encode() not in response.content
        assert not [row for row in foreign.rows if str(row.pk).encode() in response.content]

    class Scenario(schema.as_state_machine()):  # type: ignore[misc]  # a class that is made of the document
        def setup(self) -> None:
            home = build_house("HOME")
            self.key = person(home.organization, role).key
            self.known = {"organization": home.organization, "application": home.application, "user": home.user}
            self.foreign = {row: state_of(row) for row in foreign.rows}

        def before_call(self, case: Any) -> None:
            for given in (case.query, case.body):
                for name in self.known.keys() & (given.keys() if isinstance(given, dict) else ()):
                    given[name] = str(self.known[name].pk)  # the document cannot know who there is

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"headers": {"Authorization": f"Bearer {self.key}"}}

        def validate_response(self, response: Any, case: Any, *_: Any, **kwargs: Any) -> None:
            case.validate_response(response, checks=[*CHECKS, holds_nothing_foreign], transport_kwargs=kwargs)

        def teardown(self) -> None:
            for row, before in self.foreign.items():
                assert state_of(type(row).objects.get(pk=row.pk)) == before

    return Scenario


@pytest.mark.parametrize(("role", "examples"), [(Role.ADMIN, 12), (Role.DEVELOPER, 3), (Role.AUDITOR, 3)])
def test_what_the_document_describes_is_what_happens(role: Role, examples: int) -> None:
    machine_of(role).run(
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
    )
