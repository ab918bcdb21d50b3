"""What the tests of the detectors ask of a text."""

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.redaction import redact
from apps.policies.guardrails.scan import scan


def spans(text: str, detector: Detector) -> list[str]:
    return [text[found.start : found.end] for found in scan(text) if found.detector is detector]


def detectors(text: str) -> set[Detector]:
    return {found.detector for found in scan(text)}


def redacted(text: str) -> str:
    return redact(text, scan(text))
