"""Findings of many rules in one text, made into a list in order, without overlaps and of bounded length."""

from collections.abc import Iterable, Sequence

from apps.policies.guardrails.findings import MAX_FINDINGS_PER_TEXT, SEVERITY, Detector, Finding

_KEPT = MAX_FINDINGS_PER_TEXT - len(Detector)


def resolve(findings: Iterable[Finding], rests: Iterable[Finding]) -> list[Finding]:
    """Return one finding for each cluster of overlapping ones; an injection overlaps other findings freely.

    The most severe finding of a cluster names it, the longest of several; the span is that of the whole cluster, so
    that nothing that any rule found stays behind. ``rests`` cover the end of a text from where a rule stopped
    counting; like what is above `MAX_FINDINGS_PER_TEXT` they become one finding per detector, over all others.
    """
    injections: list[Finding] = []
    others: list[Finding] = []
    for finding in findings:
        (injections if finding.detector is Detector.INJECTION else others).append(finding)
    return _limited(_in_order([*_clusters(others), *_clusters(injections)]), rests)


def _limited(findings: Sequence[Finding], rests: Iterable[Finding]) -> list[Finding]:
    covers: dict[Detector, Finding] = {}
    for finding in (*findings[_KEPT:], *rests):
        first = covers.setdefault(finding.detector, finding)
        start, end = min(first.start, finding.start), max(first.end, finding.end)
        covers[finding.detector] = Finding(first.detector, first.rule, start, end)
    return _in_order([*findings[:_KEPT], *covers.values()])


def _in_order(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (finding.start, finding.end, finding.detector, finding.rule))


def _clusters(findings: Iterable[Finding]) -> list[Finding]:
    clusters: list[Finding] = []
    winner: Finding | None = None
    for finding in _in_order(findings):
        if winner is None or finding.start >= clusters[-1].end:
            winner = finding
            clusters.append(finding)
            continue
        winner = max(winner, finding, key=_rank)
        last = clusters[-1]
        clusters[-1] = Finding(winner.detector, winner.rule, last.start, max(last.end, finding.end))
    return clusters


def _rank(finding: Finding) -> tuple[int, int]:
    return SEVERITY[finding.detector], finding.end - finding.start
