"""Encodings that hide text from a scan: escapes of JSON and programming languages, percent, HTML entities, base64, hex.

Every pattern here reads each character a bounded number of times: no repetition is followed by anything that could
make it give characters back.
"""

import base64
import binascii
import html
import re

from apps.policies.guardrails.folding import FOLDED, fold, not_ascii
from apps.policies.guardrails.rewriting import UNCHANGED, Edits, rewrite

_SURROGATES = r"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = rf"\\(?:{_SURROGATES}|u[0-9a-fA-F]{{4}}|u\{{[0-9a-fA-F]{{1,6}}\}}|x[0-9a-fA-F]{{2}}|[\"'\\/bfnrt])"
_PERCENT = r"%[0-7][0-9a-fA-F]|(?:%[89a-fA-F][0-9a-fA-F])+"
_ENTITY = r"&(?:#[0-9]{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[a-zA-Z][a-zA-Z0-9]{1,31};)"
_RUN = r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*={0,2}"
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"

_ESCAPES = re.compile(_ESCAPE)
_ENCODED = re.compile("|".join((_ESCAPE, _PERCENT, _ENTITY, _RUN, _CONTROL)))
_SEGMENTS = re.compile(r"[A-Za-z0-9+]{16,}={0,2}")

ENCODED_HINT = r"\\[uxnrtbf\"'\\/]|%[0-9a-fA-F]{2}|&[#a-zA-Z][a-zA-Z0-9]|[A-Za-z0-9+/_-]{16}|" + _CONTROL
"""Matches in every text that `decode` changes, for the database of rules."""

_CONTROL_ESCAPES = {"b": " ", "f": " ", "n": "\n", "r": "\r", "t": "\t"}
_WHITESPACE = str.maketrans("", "", "\t\r\n")
_HEX = "0123456789abcdefABCDEF"


def fold_with_escapes(text: str) -> tuple[str, Edits]:
    r"""Fold a text as it came, its backslash escapes read (a tool call's arguments are JSON inside a string).

    An escape is one piece, so that no span begins or ends inside of it and JSON stays JSON when a span is replaced.
    """
    if text.isascii():
        return rewrite(text, _ESCAPES, _unescaped, str) if "\\" in text else (text, UNCHANGED)
    moved = "".join(c for c in not_ascii(text) if len(FOLDED[ord(c)]) != 1)
    if not moved and "\\" not in text:
        return fold(text), UNCHANGED
    pieces = re.compile(f"{_ESCAPE}|[{re.escape(moved)}]") if moved else _ESCAPES
    return rewrite(text, pieces, _unescaped, fold)


def decode(text: str) -> tuple[str, Edits]:
    """Return a folded text with everything in it that is encoded decoded once, and folded. It never grows."""
    return rewrite(text, _ENCODED, _decoded, str)


def _unescaped(piece: str) -> str:
    if len(piece) == 1:
        return FOLDED[ord(piece)]
    kind = piece[1]
    if kind in "ux":
        return FOLDED[ord(_character(piece))]
    return _CONTROL_ESCAPES.get(kind, kind)


def _character(escape: str) -> str:
    if len(escape) == 12:
        return chr(0x10000 + ((int(escape[2:6], 16) & 0x3FF) << 10) + (int(escape[8:], 16) & 0x3FF))
    return chr(min(int(escape[2:].strip("{}"), 16), 0x10FFFF))


def _decoded(piece: str) -> str | None:
    first = piece[0]
    if first == "\\":
        return _unescaped(piece)
    if first == "%":
        return fold(bytes.fromhex(piece.replace("%", "")).decode("utf-8", "replace"))
    if first == "&":
        decoded = html.unescape(piece)
        return None if decoded == piece else fold(decoded)
    return "" if first < " " or first == "\x7f" else _decoded_run(piece)


def _decoded_run(run: str) -> str | None:
    compact = run.translate(_WHITESPACE)
    return _printable_hex(compact) or _printable_base64(compact) or _decoded_segments(run)


def _printable_hex(run: str) -> str | None:
    if len(run) % 2 or run.strip(_HEX):
        return None
    return _printable(bytes.fromhex(run))


def _printable_base64(run: str) -> str | None:
    digits = run.rstrip("=").replace("-", "+").replace("_", "/")
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    try:
        return _printable(base64.b64decode(digits + "=" * (-len(digits) % 4)))
    except binascii.Error:
        return None


def _printable(raw: bytes) -> str | None:
    # A picture or a hash decodes to no text; so a run that does decode to some was text before.
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return fold(decoded) if decoded.translate(_WHITESPACE).isprintable() else None


def _decoded_segments(run: str) -> str | None:
    # A path or a name joined to the run shifts its digits; what stands between the joints is tried alone.
    text, edits = rewrite(run, _SEGMENTS, _printable_base64, str)
    return text if edits else None
