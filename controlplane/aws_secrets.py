"""Secrets from AWS Secrets Manager, put into the environment before the settings read it.

    AURORA_SECRET_ARN      Amazon RDS's own form: {"host", "port", "username", "password", "dbname"} -> DATABASE_URL
    PROVIDER_SECRETS_ARN   {"OPENAI_API_KEY": "...", "KEY_PEPPERS": "...", ...}: a variable for each name

What is set already stays as it is. Errors name the variable with the ARN, never what the secret holds.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

CONNECT_SECONDS, READ_SECONDS, TRIES = 2, 5, 3
_VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def read_secrets() -> None:
    """Read the secrets whose ARNs are set. Raises `ImproperlyConfigured` if one cannot be read or used."""
    for variable, variables_of in _READERS.items():
        arn = os.environ.get(variable)
        if arn:
            for name, value in variables_of(variable, _fetch(variable, arn)).items():
                os.environ[name] = os.environ.get(name) or value


def _fetch(variable: str, arn: str) -> dict[str, Any]:
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 (slow to import, and rarely needed)
    from botocore.config import Config  # type: ignore[import-untyped]  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # noqa: PLC0415

    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": TRIES})
    try:
        client = boto3.client("secretsmanager", region_name=_region(arn), config=config)
        text = client.get_secret_value(SecretId=arn).get("SecretString", "")
    except (BotoCoreError, ClientError) as error:
        raise ImproperlyConfigured(f"{variable}: the secret cannot be read ({_code(error)}).") from error
    try:
        secret = json.loads(text)
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        raise ImproperlyConfigured(f"{variable}: the secret must be a JSON object.")
    return secret


def _region(arn: str) -> str | None:
    """Return the region in ``arn:aws:secretsmanager:<region>:...``: it need not be the function's own."""
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 and parts[3] else None


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)


def _database_variables(variable: str, secret: dict[str, Any]) -> dict[str, str]:
    missing = [name for name in ("host", "username", "password", "dbname") if not secret.get(name)]
    if missing:
        raise ImproperlyConfigured(f"{variable}: the secret lacks {', '.join(missing)}.")
    user, password, database = (quote(str(secret[name]), safe="") for name in ("username", "password", "dbname"))
    return {"DATABASE_URL": f"postgres://{user}:{password}@{secret['host']}:{secret.get('port') or 5432}/{database}"}


def _named_variables(variable: str, secret: dict[str, Any]) -> dict[str, str]:
    usable = all(_VARIABLE_NAME.fullmatch(name) and isinstance(value, str) for name, value in secret.items())
    if not usable:
        raise ImproperlyConfigured(f"{variable}: the secret must map names of environment variables to texts.")
    return secret


_READERS: dict[str, Callable[[str, dict[str, Any]], dict[str, str]]] = {
    "AURORA_SECRET_ARN": _database_variables,
    "PROVIDER_SECRETS_ARN": _named_variables,
}
