"""The signature of a webhook: HMAC-SHA256 over the time and the body, by every secret that is valid just then."""

import hashlib
import hmac
from collections.abc import Sequence

HEADER = "LCP-Signature"


def signed(body: bytes, secrets: Sequence[str], moment: int) -> str:
    """Return the header's value: ``t=<Unix time>,v1=<hex>``, with one ``v1`` for each secret, the current one first."""
    text = f"{moment}.".encode() + body
    digests = [hmac.new(secret.encode(), text, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={moment}", *(f"v1={digest}" for digest in digests)])
