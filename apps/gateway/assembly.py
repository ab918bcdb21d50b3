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
    calls: dict[int, Body] = field(default_factory=dict)
    finish_reason: str | None = None

    def add(self, delta: Body) -> None:
        """Take in a delta: every text in it, known to us or not, since a guardrail must see all of them."""
        for name, value in delta.items():
            if isinstance(value, str) and name != "role":
                self.texts.setdefault(name, []).append(value)
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict):
                self._add_call(call)

    def message(self) -> Body:
        """Return the message as it would stand in a whole answer."""
        message: Body = {"role": "assistant", "content": None}
        message |= {name: "".join(pieces) for name, pieces in self.texts.items()}
        if self.calls:
            message["tool_calls"] = [_whole_call(call) for _, call in sorted(self.calls.items())]
        return message

    def _add_call(self, call: Body) -> None:
        index = call.get("index")
        known = self.calls.setdefault(index if isinstance(index, int) else 0, {"name": "", "arguments": []})
        known["id"] = call.get("id") or known.get("id")
        function = call.get("function")
        if isinstance(function, dict):
            known["name"] = function.get("name") or known["name"]
            if isinstance(function.get("arguments"), str):
                known["arguments"].append(function["arguments"])


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


def _whole_call(call: dict[str, Any]) -> Body:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"id": call.get("id"), "type": "function", "function": function}


def _indexed_calls(message: Body) -> Body:
    calls = message.get("tool_calls")
    return {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]} if calls else {}
