"""The mail server, from one variable."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_PORTS = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mail is handed in, and as whom."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    tls: bool = False


def mail_server(url: str) -> MailServer:
    """Read ``smtp+tls://user:password@host:587`` (or ``smtp+ssl``, or plain ``smtp``); empty: no mail server.

    Raises `ImproperlyConfigured`, which names the variable and never its value.
    """
    if not url:
        return MailServer()
    problem = "EMAIL_URL must be smtp+tls://user:password@host:port, smtp+ssl://… or smtp://…"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ImproperlyConfigured(problem) from None
    if not host or parts.scheme not in _PORTS:
        raise ImproperlyConfigured(problem)
    return MailServer(
        host,
        port or _PORTS[parts.scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        starttls=parts.scheme == "smtp+tls",
        tls=parts.scheme == "smtp+ssl",
    )
