"""The strings of a JSON value, and the parts of a request that no scan of strings covers. Nothing here recurses."""

from collections import Counter
from collections.abc import Iterator, Mapping
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
