"""Pages for people when something is not there, not theirs, or broken: what it means and a way on."""

import pytest
from django.test import Client, RequestFactory
from django.urls import reverse

from apps.orgs.models import Application
from controlplane import error_pages
from tests.admin.cast import PASSWORD, Cast, address

WAY_ON = '<a href="/admin/">'


def test_an_address_that_nothing_serves_is_explained(onlookers: Cast) -> None:
    response = onlookers.browser("auditor").get("/admin/nonsense/")
    assert response.status_code == 404
    assert "There is no such page" in response.content.decode()
    assert WAY_ON in response.content.decode()


def test_what_a_role_does_not_allow_is_explained(onlookers: Cast) -> None:
    response = onlookers.browser("auditor").get(address(Application, "add"))
    assert response.status_code == 403
    assert "Your role does not allow this" in response.content.decode()


def test_what_is_not_there_and_what_is_not_theirs_look_the_same(onlookers: Cast) -> None:
    client = onlookers.browser("admin")
    foreign, home = onlookers.foreign.application, onlookers.home.key
    answers = [client.get(address(Application, "history", pk)) for pk in (foreign.pk, home.pk)]
    assert [a.status_code for a in answers] == [403, 403]
    assert answers[0].content == answers[1].content


def test_a_form_from_before_a_new_login_is_explained(onlookers: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    form = {"username": onlookers.people["admin"].username, "password": PASSWORD}
    response = client.post(reverse("admin:login"), form)
    assert response.status_code == 403
    assert "This form is no longer valid" in response.content.decode()


@pytest.mark.parametrize("path", ["/admin/", "/v1/chat/completions"])
def test_a_failure_of_ours_is_a_page_for_people_and_json_for_programs(path: str) -> None:
    response = error_pages.server_error(RequestFactory().get(path))
    assert response.status_code == 500
    assert ("Something failed on our side" in response.content.decode()) is path.startswith("/admin/")
    assert response["content-type"].startswith("text/html" if path.startswith("/admin/") else "application/json")
