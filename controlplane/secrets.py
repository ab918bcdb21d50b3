"""Secrets the settings need before Django runs: key rings from the environment, and a developer's own."""

import base64
import json
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

DEVELOPMENT_KEY = "dev1"
"""The id of the keys that a developer's machine makes for itself. Production refuses to encrypt under one."""


def parse_key_ring(text: str, name: str) -> dict[str, bytes]:
    """Read ``id:base64,id:base64`` into ``{id: 32 bytes or more}``; the first one is used for new values.

    Raises `ImproperlyConfigured`, which names the variable and never its value.
    """
    ring: dict[str, bytes] = {}
    for entry in filter(None, text.split(",")):
        key_id, _, encoded = entry.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not key_id or len(key) < 32:
            msg = f"{name} must be a list of id:base64 pairs, each key at least 32 bytes"
            raise ImproperlyConfigured(msg)
        ring[key_id] = key
    return ring


def redis_url(value: str) -> str:
    """Return the URL for ``value``, which may be a bare ``host:port``; an empty value stays empty."""
    return value if not value or "://" in value else f"redis://{value}/0"


def development_secrets(folder: Path) -> dict[str, str]:
    """Make this machine's own secrets once and read them ever after, so that a second start finds its data."""
    path = folder / "secrets.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _publish(path, json.dumps({name: make() for name, make in _MAKERS.items()}))
    stored: dict[str, str] = json.loads(path.read_text())
    return stored


def _publish(path: Path, text: str) -> None:
    """Write whole or not at all, and keep what another process published first."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _key() -> str:
    return f"{DEVELOPMENT_KEY}:" + base64.b64encode(secrets.token_bytes(32)).decode()


_MAKERS = {"SECRET_KEY": lambda: secrets.token_urlsafe(50), "KEY_PEPPERS": _key, "ENCRYPTION_KEYS": _key}
