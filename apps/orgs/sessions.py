"""When a session of the admin ends: after a time, after a rest, and how often the identity provider is asked again.

The moments stand in the session itself, in seconds since 1970. A person whom an admin disables needs none of this:
they are looked up at each request.
"""

import time
from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from apps.orgs.cognito import login_provider
from apps.orgs.sign_ins import Event, record

BEGAN, SEEN, ASKED = "began", "seen", "provider_asked"
SEEN_EVERY_SECONDS = 60
"""How exactly a rest is measured: not each request needs to write the session."""


def begin(request: HttpRequest) -> None:
    """Note that a session begins with a login."""
    now = int(time.time())
    request.session[BEGAN] = request.session[SEEN] = now
    request.session.pop(ASKED, None)


def note_asked(request: HttpRequest) -> None:
    """Note that the identity provider has just said who it is."""
    request.session[ASKED] = int(time.time())


def is_of_the_provider(request: HttpRequest) -> bool:
    """Whether it was the identity provider that said who it is."""
    return ASKED in request.session


class SessionEndMiddleware:
    """Ends sessions in time, and sends people by the identity provider when it is time to ask it again."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, or redirect."""
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            now = int(time.time())
            if reason := _end(request, now):
                record(request, Event.LOGOUT, request.user, reason)
                auth.logout(request)
            elif _is_to_ask(request, now):
                query = urlencode({"next": request.get_full_path()})
                return HttpResponseRedirect(f"{reverse('oidc_start')}?{query}")
        return self.get_response(request)


def _end(request: HttpRequest, now: int) -> str:
    """Say why the session ends, ``""`` if it goes on, and note that it is used."""
    session = request.session
    began, seen = session.setdefault(BEGAN, now), session.setdefault(SEEN, now)
    if now - began >= settings.SESSION_SECONDS:
        return "The session was as long as a session may be."
    if now - seen >= settings.SESSION_IDLE_SECONDS:
        return "The session was not used."
    if now - seen >= min(SEEN_EVERY_SECONDS, settings.SESSION_IDLE_SECONDS / 10):
        session[SEEN] = now
    return ""


def _is_to_ask(request: HttpRequest, now: int) -> bool:
    """Whether a person opens a page and the provider has not been asked lately. A form that is sent is let through."""
    asked = request.session.get(ASKED)
    if asked is None or now - asked < settings.SESSION_RENEW_SECONDS or request.method != "GET":
        return False
    mode = request.headers.get("sec-fetch-mode", "navigate")
    opens_a_page = mode == "navigate" and "text/html" in request.headers.get("accept", "")
    return opens_a_page and not request.path.startswith("/oauth2/") and login_provider() is not None
