"""What the guardrails find: a kind of data and where it stands, never the data itself."""

from dataclasses import dataclass
from enum import StrEnum

MAX_FINDINGS_PER_TEXT = 10_000
"""Beyond it, one finding per detector covers the rest of the text from the first one that is left over."""


class Detector(StrEnum):
    """A kind of data that a guardrail policy can name."""

    EMAIL = "email"
    PHONE = "phone"
    SSN = "ssn"
    CREDIT_CARD = "credit_card"
    IP_ADDRESS = "ip_address"
    SECRET = "secret"  # noqa: S105 - the detector's name
    INJECTION = "injection"


SEVERITY = {
    detector: rank
    for rank, detector in enumerate(
        (
            Detector.INJECTION,
            Detector.IP_ADDRESS,
            Detector.PHONE,
            Detector.EMAIL,
            Detector.SSN,
            Detector.CREDIT_CARD,
            Detector.SECRET,
        )
    )
}
"""Which detector names a span that several claim: the highest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of the original text, in characters, half open, and the rule that found it."""

    detector: Detector
    rule: str
    start: int
    end: int
