"""The record of who came in, who was refused and who left: change records like all others, without any secret.

What somebody typed as a name is kept only if there is such a user: it may have been a password.
"""

from enum import StrEnum
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from apps.audit import fence
from apps.audit.changes import Actor, record_change
from apps.orgs.models import User

UNKNOWN = "(unknown)"
NOBODYS = UUID(int=0)


class Event(StrEnum):
    """What happened; the action of its record."""

    LOGIN = "login"
    REFUSED = "login refused"
    LOGOUT = "logout"


@fence.everything()
def record(request: HttpRequest, event: Event, user: Any, reason: str = "") -> None:
    """Append a record. ``user``: whom it is about, ``None`` if nobody here is meant.

    Who was refused did not prove to be the user, so the record names no actor. It shows to the admins of the
    organization of a user who is in one alone.
    """
    about = user if isinstance(user, User) else User(pk=NOBODYS, username=UNKNOWN)
    proven = event is not Event.REFUSED
    actor = Actor(about.pk if proven else None, about.username if proven else UNKNOWN, "admin", address_of(request))
    organizations = list(about.roles()) if isinstance(user, User) else []
    organization = organizations[0] if len(organizations) == 1 else None
    record_change(actor, event.value, about, organization_id=organization, reason=reason)


def address_of(request: HttpRequest) -> str | None:
    """Return where a request comes from: the connection's address, or behind our proxy the one that it appended."""
    text = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        text = request.headers.get("x-forwarded-for", text).rpartition(",")[2].strip()
    try:
        return str(ip_address(text))
    except ValueError:
        return None
