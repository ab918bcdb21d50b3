"""Secrets the settings need before Django runs: key rings from the environment, and a developer's own."""

import base64
import json
import os
import secrets
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

DEVELOPMENT_KEY = "dev1"
"""The id of the keys that a developer's machine makes for itself. Production refuses to encrypt under one."""


class Environment(environ.Env):  # type: ignore[misc]
    """The environment, where a number that is none is told by its variable's name."""

    def get_value(self, var: str, cast: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return a variable's value. Raises `ImproperlyConfigured`, which does not show it."""
        try:
            if cast is float and var in self.ENVIRON:
                return float(self.ENVIRON[var])  # the library's own reading makes a number of any text
            return super().get_value(var, cast, *args, **kwargs)
        except ValueError:
            kind = "a whole number" if cast is int else "a number"
            raise ImproperlyConfigured(f"{var} must be {kind}.") from None


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
    url = value if not value or "://" in value else f"redis://{value}/0"
    if url and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ImproperlyConfigured("REDIS_URL must be host:port, or begin with redis://, rediss:// or unix://.")
    return url


def database_url(value: str) -> str:
    """Return ``value``. Raises `ImproperlyConfigured` unless it leads to a database that the product works with."""
    if value.partition("://")[0] not in ("postgres", "postgresql", "pgsql", "psql", "sqlite"):
        raise ImproperlyConfigured("DATABASE_URL must begin with postgres:// or sqlite://.")
    return value


def development_secrets(folder: Path) -> dict[str, str]:
    """Make this machine's own secrets once and read them ever after, so that a second start finds its data."""
    path = folder / "secrets.json"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _publish(path, json.dumps({name: make() for name, make in _MAKERS.items()}))
        except OSError as error:
            raise ImproperlyConfigured(f"DATA_DIR {folder} cannot be written to: {error.strerror}.") from error
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
