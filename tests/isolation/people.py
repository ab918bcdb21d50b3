"""Who knocks at the addresses: each role with a session and with a key, an application, and nobody."""

import json
from collections.abc import Callable
from typing import Any

from django.test import Client

from apps.orgs import keys
from tests.admin.cast import MEMBERS, Cast
from tests.isolation.matrix import Visit

AT_THE_ADMIN = (*MEMBERS, "nobody", "stranger", "application")
AT_THE_API = (*MEMBERS, "everywhere", "nobody", "application", "stranger")
Knock = Callable[[Visit], Any]


def at_the_admin(cast: Cast, person: str) -> tuple[Client, Knock]:
    """Return a browser, and how it makes a request. Strangers have no session, and an application only its key."""
    client = Client(raise_request_exception=True)
    if person in cast.people:
        client.force_login(cast.people[person])
    headers = {"authorization": f"Bearer {_key(cast, person)}"} if person == "application" else {}

    def knock(visit: Visit) -> Any:
        client.cookies.pop("messages", None)  # what the answer before said
        send = client.post if visit.method == "POST" else client.get
        return send(visit.url, visit.data or None, headers=headers)

    return client, knock


def at_the_api(cast: Cast, person: str) -> Knock:
    """Return how a person makes a request with a key; of "everywhere" the admin's key is for no organization."""
    client = Client(raise_request_exception=True)
    headers = {} if person == "stranger" else {"authorization": f"Bearer {_key(cast, person)}"}

    def knock(visit: Visit) -> Any:
        body = visit.data if visit.method not in ("GET", "DELETE") else None
        return client.generic(visit.method, visit.url, _json(body), "application/json", headers=headers)

    return knock


def _json(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def _key(cast: Cast, person: str) -> str:
    home = cast.home
    if person == "application":
        return keys.issue(organization=home.organization, application=home.application, name="of the software").text
    if person == "everywhere":
        return keys.issue(user=cast.people["admin"], name="for no organization").text
    bound = home.organization if person in MEMBERS else None
    return keys.issue(user=cast.people[person], organization=bound, name=f"of {person}").text
