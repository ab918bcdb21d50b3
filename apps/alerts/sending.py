"""How messages leave: by HTTP through the gateway's own transport, which checks and pins every address, or by SMTP.

Sending raises nothing: what became of a message is an `Outcome`, in words that hold no address and no secret.
"""

import asyncio
import logging
import smtplib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.utils import timezone

from apps.alerts.message import Message, as_json, as_mail, as_slack
from apps.alerts.models import Destination
from apps.alerts.signature import HEADER, signed
from apps.gateway.addresses import allowed_networks
from apps.gateway.providers.base import Fault, UpstreamError, UpstreamRequest
from apps.gateway.transport import Limits, Timeouts, Transport
from apps.orgs.encryption import DecryptionError, KeysUnavailable

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""How long a destination may take to answer."""
MOST_RETRY_AFTER = 3600.0
_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a message arrived, in words for people; ``retry_after`` is the receiver's own wish, in seconds."""

    arrived: bool
    said: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """A message as it goes over HTTP."""

    url: str
    headers: Mapping[str, str]
    body: bytes


Letter = tuple[Destination, Message]


def send(letters: Sequence[Letter]) -> list[Outcome]:
    """Send messages, all at once: one that is slow holds up no other. Returns what became of each.

    What needs the database (a destination's data key) is read before, on the caller's thread.
    """
    return asyncio.run(_send_all([_written(*letter) for letter in letters])) if letters else []


def _written(destination: Destination, message: Message) -> "Post | EmailMessage | Outcome":
    """Return a message as it goes out, or why it cannot."""
    try:
        if destination.channel == Destination.Channel.EMAIL:
            return _mail_of(destination, message)
        return _post_of(destination, message)
    except DecryptionError:
        return Outcome(False, "The destination's secret cannot be read: make it anew.")
    except KeysUnavailable:
        return Outcome(False, "The key service does not answer.")
    except Exception as error:  # noqa: BLE001 (one that cannot be written fails alone)
        return _failed(error)


async def _send_all(written: Sequence["Post | EmailMessage | Outcome"]) -> list[Outcome]:
    timeouts = Timeouts(connect=SECONDS / 2, first_byte=SECONDS, idle=SECONDS, total=SECONDS)
    limits = Limits(connections=100, reply_bytes=_ANSWER_BYTES)
    async with Transport(timeouts=timeouts, limits=limits, allowed_networks=allowed_networks()) as transport:
        return list(await asyncio.gather(*(_send_one(transport, one) for one in written)))


async def _send_one(transport: Transport, written: "Post | EmailMessage | Outcome") -> Outcome:
    if isinstance(written, Outcome):
        return written
    try:
        if isinstance(written, EmailMessage):
            return await asyncio.to_thread(_mail, written)
        async with asyncio.timeout(SECONDS):
            return await _posted(transport, written)
    except UpstreamError as error:
        return Outcome(False, _FAULTS.get(error.fault, "The connection broke."))
    except TimeoutError:
        return Outcome(False, _FAULTS[Fault.TIMEOUT])
    except Exception as error:  # noqa: BLE001 (one that cannot be sent fails alone)
        return _failed(error)


def _failed(error: Exception) -> Outcome:
    # Its type alone: what it says may hold an address that is a secret.
    logger.error("A message could not be sent: %s.", type(error).__name__)
    return Outcome(False, "The message could not be sent.")


async def _posted(transport: Transport, post: Post) -> Outcome:
    response = await transport.send(UpstreamRequest("POST", post.url, post.headers, post.body))
    await response.close()
    status = response.status
    if 200 <= status < 300:
        return Outcome(True, f"The receiver answered {status}.")
    if 300 <= status < 400:
        return Outcome(False, f"The receiver answered {status}; redirects are not followed.")
    return Outcome(False, f"The receiver answered {status}.", _retry_after(response.headers.get("retry-after", "")))


def _post_of(destination: Destination, message: Message) -> Post:
    headers = {"content-type": "application/json", "lcp-delivery": str(message.id)}
    if destination.channel == Destination.Channel.SLACK:
        return Post(destination.secret(), headers, as_slack(message))
    body = as_json(message, timezone.now())
    signature = signed(body, destination.signing_secrets(), int(time.time()))
    return Post(destination.url, {**headers, HEADER.lower(): signature}, body)


def _mail_of(destination: Destination, message: Message) -> EmailMessage | Outcome:
    if not settings.EMAIL_URL:
        return Outcome(False, "No mail server is set up: the operator has to set EMAIL_URL.")
    subject, body = as_mail(message)
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip("> ") or "localhost"
    headers = {"Message-ID": f"<{message.id}@{domain}>", "Auto-Submitted": "auto-generated"}
    return EmailMessage(subject, body, None, destination.recipients, headers=headers)


def _mail(mail: EmailMessage) -> Outcome:
    mail.connection = get_connection()
    try:
        mail.send()
    except smtplib.SMTPResponseException as error:
        return Outcome(False, f"The mail server refused the message ({error.smtp_code}).")
    except smtplib.SMTPRecipientsRefused:
        return Outcome(False, "The mail server refused every recipient.")
    except (smtplib.SMTPException, OSError, ValueError):
        return Outcome(False, "The mail server could not be reached, or broke off.")
    return Outcome(True, "The mail server took the message.")


def _retry_after(value: str) -> float | None:
    return min(float(value), MOST_RETRY_AFTER) if value.isascii() and value.isdecimal() and len(value) < 10 else None


_FAULTS = {
    Fault.ADDRESS: "The address is not one that messages may go to: it must be public, and start with https://.",
    Fault.CONNECT: "The receiver could not be reached.",
    Fault.TIMEOUT: f"The receiver did not answer within {SECONDS:.0f} s.",
    Fault.BROKEN: "The connection broke.",
    Fault.GARBAGE: "The receiver's answer is not valid HTTP.",
}
