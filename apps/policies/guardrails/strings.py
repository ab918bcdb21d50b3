"""The strings of a JSON value, and the parts of a request that no scan of strings covers. Nothing here recurses."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any, TypeAlias, Union

JSON: TypeAlias = Union[bool, int, float, str, "list[JSON]", "dict[str, JSON]", None]

_TEXT_PARTS = frozenset({"text", "refusal", "input_text", "output_text", "thinking", "tool_use", "tool_result"})


def strings_of(value: JSON) -> list[str]:
    """Return every string in ``value``, the keys of its objects too, in an order that `replace_strings` shares."""
    strings: list[str] = []
    containers: list[Any] = [[value]]
    for container in containers:  # grows while it is walked
        items = container
        if isinstance(container, dict):
            items = [part for entry in container.items() for part in entry]
        for item in items:
            if isinstance(item, str):
                strings.append(item)
            elif isinstance(item, (dict, list)):
                containers.append(item)
    return strings


_OF_MESSAGES = {
    "messages",
    "role",
    "content",
    "text",
    "name",
    "refusal",
    "reasoning",
    "reasoning_content",
    "annotations",
}
_OF_TOOLS = {
    "tools",
    "tool_calls",
    "tool_call_id",
    "function",
    "function_call",
    "arguments",
    "parameters",
    "properties",
}
_OF_REQUESTS = {"model", "system", "prompt", "input", "user", "metadata", "stop", "response_format", "prediction"}
_OF_PARTS = {"image_url", "url", "audio", "transcript", "id", "type", "title", "description", "annotations"}
_NAMES = frozenset({"choices", "message"} | _OF_MESSAGES | _OF_TOOLS | _OF_REQUESTS | _OF_PARTS)
"""Keys that name a place. Any other is the caller's own word, and may be what was found."""


def places_of(value: JSON, wanted: Container[int]) -> dict[int, str]:
    """Return where in ``value`` the i-th string of `strings_of` stands, for each i that is ``wanted``.

    As a path such as ``messages[2].content``, with ``*`` for keys that are none of the API's own. Only the paths that
    are wanted are put together: a value may hold a great many strings.
    """
    places: dict[int, str] = {}
    containers: list[_Inside] = [_Inside(None, "", [value])]
    passed = 0
    for here in containers:  # grows while it is walked
        for key, item, is_key in here.items():
            if isinstance(item, str):
                if passed in wanted:
                    places[passed] = here.place(key) + (" (its name)" if is_key else "")
                passed += 1
            elif isinstance(item, (dict, list)):
                containers.append(_Inside(here, key, item))
    return places


class _Inside:
    """A container, and by which key of which other one it is reached."""

    __slots__ = ("_container", "_key", "_outer")

    def __init__(self, outer: "_Inside | None", key: Any, container: Any) -> None:
        self._outer, self._key, self._container = outer, key, container

    def items(self) -> Iterator[tuple[Any, Any, bool]]:
        """Give (key, part, whether the part is the key itself), in the order of `strings_of`."""
        if isinstance(self._container, dict):
            for key, item in self._container.items():
                yield key, key, True
                yield key, item, False
        else:
            for number, item in enumerate(self._container):
                yield number, item, False

    def place(self, key: Any) -> str:
        """Return the path to what stands here under ``key``. The list around the whole value is no part of it."""
        steps, here = [], self
        while here._outer is not None:
            steps.append(f"[{key}]" if isinstance(key, int) else f".{key if key in _NAMES else '*'}")
            key, here = here._key, here._outer
        return "".join(reversed(steps)).lstrip(".")


def replace_strings(value: JSON, replacements: Mapping[int, str]) -> JSON:
    """Return a copy of ``value`` whose i-th string is ``replacements[i]``, for each i there.

    A key that would then stand for two entries is numbered (``[EMAIL]``, ``[EMAIL] (2)``), so that none is lost.
    """
    return _Copy(replacements).of(value)


class _Copy:
    def __init__(self, replacements: Mapping[int, str]) -> None:
        self._replacements = replacements
        self._passed = 0
        self._pairs: list[tuple[Any, Any]] = []

    def of(self, value: JSON) -> JSON:
        root: list[JSON] = []
        self._pairs.append(([value], root))
        for old, new in self._pairs:  # grows while it is walked
            if isinstance(old, dict):
                self._fill_object(old, new)
            else:
                new.extend(map(self._copied, old))
        return root[0]

    def _fill_object(self, old: Mapping[str, JSON], new: dict[str, JSON]) -> None:
        taken: Counter[str] = Counter()
        for key, item in old.items():
            wanted = name = self._next(key)
            while name in new:
                taken[wanted] += 1
                name = f"{wanted} ({taken[wanted] + 1})"
            new[name] = self._copied(item)

    def _copied(self, item: JSON) -> JSON:
        if isinstance(item, str):
            return self._next(item)
        if not isinstance(item, (dict, list)):
            return item
        copy: JSON = {} if isinstance(item, dict) else []
        self._pairs.append((item, copy))
        return copy

    def _next(self, text: str) -> str:
        number = self._passed
        self._passed += 1
        return self._replacements.get(number, text)


def unscannable_parts(body: Mapping[str, Any]) -> list[str]:
    """Return the JSON paths of what ``body`` has a model read that is no text.

    That is pictures, sound, files, parts of a type unknown here, answers referred to by their id, and tokens in place
    of texts. ``body`` is a request for a chat completion, a message or embeddings.
    """
    return [path for path, part in _parts(body) if not _is_text(part)]


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("system", "input", "prompt"):
        yield from _content(name, body.get(name))
    prediction = body.get("prediction")
    if isinstance(prediction, dict):
        yield from _content("prediction.content", prediction.get("content"))
    messages = body.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            yield from _content(f"messages[{number}].content", message.get("content"))
            if message.get("audio") is not None:
                yield f"messages[{number}].audio", message["audio"]


def _content(path: str, content: Any) -> Iterator[tuple[str, Any]]:
    pending = [(path, content)]
    for where, value in pending:  # grows while it is walked
        if value is None:
            continue
        if not isinstance(value, list):
            yield where, value
            continue
        for number, part in enumerate(value):
            yield f"{where}[{number}]", part
            if isinstance(part, dict) and part.get("type") == "tool_result" and part.get("content") is not None:
                pending.append((f"{where}[{number}].content", part["content"]))


def _is_text(part: Any) -> bool:
    if isinstance(part, dict):
        kind = part.get("type")
        return isinstance(kind, str) and kind in _TEXT_PARTS
    return isinstance(part, str)
