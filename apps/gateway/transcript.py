"""Messages as a person reads them: what the audit trail keeps of a prompt and of an answer."""

from collections.abc import Iterable
from typing import Any

import orjson

from apps.gateway.providers.base import Body


def prompt_transcript(body: Body) -> str:
    """Return the conversation of a request, a line or more for each message, parts that are no text named."""
    return "\n".join(f"{m.get('role', '')}: {_message_text(m)}" for m in body.get("messages", ()))


def answer_transcript(messages: Iterable[Body]) -> str:
    """Return the texts of an answer's messages, one for each choice."""
    return "\n".join(_message_text(message) for message in messages)


_NO_TEXTS = frozenset({"role", "content", "tool_call_id"})


def _message_text(message: Body) -> str:
    pieces = [_content_text(message.get("content"))]
    pieces += [text for name, text in message.items() if isinstance(text, str) and name not in _NO_TEXTS]
    pieces += [f"[tool call] {_call_text(call)}" for call in message.get("tool_calls") or ()]
    if message.get("function_call"):
        pieces.append(f"[function call] {_call_text({'function': message['function_call']})}")
    return "\n".join(piece for piece in pieces if piece)


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content)


def _call_text(call: Body) -> str:
    function = call.get("function")
    if not isinstance(function, dict):
        return orjson.dumps(call).decode()
    return f"{function.get('name', '')}({function.get('arguments', '')})"
