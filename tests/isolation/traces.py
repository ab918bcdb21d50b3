"""What betrays another organization: its words, its ids, and an answer unlike the one for what is not there."""

import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from django.contrib.messages import get_messages
from django.db import models

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# What differs between two answers to one request, whoever asks for what.
_FLEETING = (
    (re.compile(r'name="csrfmiddlewaretoken" value="\w+"'), "<csrf>"),
    (re.compile(r"\d\d:\d\d:\d\d(?:\.\d+)?"), "<time>"),
    (re.compile(r"lcp_[0-9A-Za-z]{8}_[0-9A-Za-z_…]*"), "<key>"),
    (re.compile(r'(?<="prefix":")\w{8}'), "<prefix>"),
    (re.compile(r"whsec_[\w-]{43}"), "<secret>"),
    (re.compile(r'(?<="last_four":")[\w-]{4}'), "<end>"),
    (re.compile(r"in \d+\.\d+ seconds"), "<duration>"),
    (re.compile(r'"version":\d+'), "<version>"),
)
_FLEETING_HEADERS = {"set-cookie", "x-request-id", "content-length", "expires", "date", "etag"}


class Traces:
    """The words and ids of one organization, each with a counterpart that belongs to nothing.

    ``taken`` is a word of its names that others may use as well: it betrays nothing, unless it is answered in another
    way than its counterpart.
    """

    def __init__(
        self, marker: str, taken: str, rows: "Iterable[models.Model]", known: "Iterable[models.Model]"
    ) -> None:
        self._counterparts = {marker: f"{marker.partition('-')[0]}-{uuid4()}"}
        self._taken = taken
        self._free: list[str] = []
        for row in rows:
            if not isinstance(row.pk, int):  # a number betrays nothing, and stands in no address
                self._counterparts[str(row.pk)] = _nothings(row.pk)
            if prefix := getattr(row, "prefix", ""):
                self._counterparts[prefix] = uuid4().hex[: len(prefix)]
        self._known = {str(row.pk) for row in known} | self._counterparts.keys()

    def nothings(self, text: str) -> str:
        """Return a request's text with what belongs to nothing in place of what belongs to the organization."""
        for mine, counterpart in self._counterparts.items():
            text = text.replace(mine, counterpart)
        return text.replace(self._taken, self._new_name()) if self._taken in text else text

    def _new_name(self) -> str:
        # Another one each time: what was made under the last one has taken it.
        self._free.append(uuid4().hex)
        return self._free[-1]

    def betrayed(self, said: str, asked: str) -> list[str]:
        """Return where an answer says what the request did not say, each with what stands around it."""
        squeezed = asked.replace("-", "")
        places = []
        for mine in self._counterparts:
            for trace in (mine, mine.replace("-", "")):
                at = said.find(trace)
                if at >= 0 and trace.replace("-", "") not in squeezed:
                    places.append(said[max(0, at - 200) : at + 80])
        return places

    def plain(self, said: str) -> str:
        """Return an answer without what changes from one to the next, of counterparts as of the originals."""
        for mine, counterpart in self._counterparts.items():
            said = said.replace(counterpart, mine)
        for name in self._free[-1:]:
            said = said.replace(name, self._taken)
        for pattern, word in _FLEETING:
            said = pattern.sub(word, said)
        return _UUID.sub(lambda found: found[0] if found[0] in self._known else "<id>", said)


def said(response: Any) -> str:
    """Return all that an answer says: status, headers, messages for the next page, body."""
    headers = sorted(f"{name}: {value}" for name, value in response.items() if name.lower() not in _FLEETING_HEADERS)
    request = response.wsgi_request if hasattr(response.wsgi_request, "_messages") else None
    waiting = [str(message) for message in get_messages(request)._queued_messages] if request else []
    return "\n".join([str(response.status_code), *headers, *waiting, _body(response)])


def _body(response: Any) -> str:
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return str(body.decode())


def _nothings(pk: UUID) -> str:
    # The time in it stays: an id of nothing must be as old as the one that it stands for.
    return f"{str(pk)[:15]}{str(uuid4())[15:]}"
