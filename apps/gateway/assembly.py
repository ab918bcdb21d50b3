"""The messages of a streamed answer, put together from its deltas, and taken apart again if they were changed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.gateway.providers.base import Body, Chunk, Usage


@dataclass(slots=True)
class _Choice:
    """One choice as far as it has come; texts are kept in pieces, by field, and joined once."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None

    def add(self, delta: Body) -> None:
        """Take in a delta: everything in it, known to us or not, since a guardrail must see every text."""
        for name, value in delta.items():
            if isinstance(value, str):
                if name != "role":
                    self.texts.setdefault(name, []).append(value)
            elif value is not None:
                self.values[name] = _merged(self.values.get(name), value)

    def message(self) -> Body:
        """Return the message as it would stand in a whole answer."""
        message: Body = {"role": "assistant", "content": None}
        message |= {name: "".join(pieces) for name, pieces in self.texts.items()}
        # A field that was both is a defect of the provider's; what is not shown here would not be inspected.
        return message | {f"{n} (2)" if n in self.texts else n: _joined(value) for n, value in self.values.items()}


class Assembly:
    """All choices of one streamed answer, its usage, and whether its end was seen."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self.usage: Usage | None = None
        self.done = False

    def add(self, chunk: Chunk) -> None:
        """Take in one chunk."""
        self.usage = chunk.usage or self.usage
        self.done = self.done or chunk.done
        for part in chunk.body.get("choices") or ():
            index = part.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice()
            choice.finish_reason = part.get("finish_reason") or choice.finish_reason
            delta = part.get("delta")
            if isinstance(delta, dict):
                choice.add(delta)

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: its own end was seen, or every choice says why it finished."""
        return self.done or (bool(self._choices) and all(c.finish_reason for c in self._choices.values()))

    def messages(self) -> list[Body]:
        """Return what has come so far, one message for each choice, in the order of their index."""
        return [choice.message() for _, choice in sorted(self._choices.items())]

    def rewritten(self, chunks: Sequence[Chunk], messages: Sequence[Body], include_usage: bool) -> list[bytes]:
        """Return chunks (JSON) that stream changed ``messages`` in place of those that came, usage and all."""
        envelope = {k: v for k, v in chunks[0].body.items() if k not in ("choices", "usage")}
        data = []
        for (index, choice), message in zip(sorted(self._choices.items()), messages, strict=True):
            delta = {**message, **_indexed_calls(message)}
            data.append({**envelope, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
            last = {"index": index, "delta": {}, "finish_reason": choice.finish_reason}
            data.append({**envelope, "choices": [last]})
        usage = [chunk.data for chunk in chunks if chunk.usage_only and include_usage]
        return [*map(orjson.dumps, data), *usage]


class _Text(list[str]):
    """A text within an object, in the pieces in which it comes."""


class _Items(dict[Any, Any]):
    """A list whose items come by their index; one without an index is not added to later."""


def _merged(known: Any, value: Any) -> Any:
    """Return what is known with what a delta adds: texts go on, objects grow, other values are replaced."""
    if isinstance(value, str):
        return _longer(known if isinstance(known, _Text) else _Text(), value)
    if isinstance(value, list):
        return _with_items(known if isinstance(known, _Items) else _Items(), value)
    if not isinstance(value, dict):
        return known if value is None else value
    grown = known if type(known) is dict else {}
    for name, item in value.items():
        if name not in _MAY_BE_REPEATED or not isinstance(item, str) or item != _joined(grown.get(name)):
            grown[name] = _merged(grown.get(name), item)
    return grown


def _longer(text: _Text, piece: str) -> _Text:
    text.append(piece)
    return text


def _with_items(items: _Items, added: Sequence[Any]) -> _Items:
    for item in added:
        index = item.get("index") if isinstance(item, dict) else None
        place = index if type(index) is int else (len(items),)
        items[place] = _merged(items.get(place), item)
    return items


def _joined(value: Any) -> Any:
    """Return a merged value as JSON holds it. The index of an item is its place, and no longer said."""
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, _Items):
        return [_joined(_unnumbered(item)) for item in value.values()]
    if isinstance(value, dict):
        return {name: _joined(item) for name, item in value.items()}
    return value


def _unnumbered(item: Any) -> Any:
    return {name: value for name, value in item.items() if name != "index"} if type(item) is dict else item


def _indexed_calls(message: Body) -> Body:
    calls = message.get("tool_calls")
    return {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]} if calls else {}


_MAY_BE_REPEATED = frozenset({"id", "type", "name"})
"""What some providers say again in every delta of a call."""
