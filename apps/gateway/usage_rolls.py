"""Bringing the sums of usage up to date, with the tags that organizations have chosen."""

from apps.audit import rollups
from apps.orgs.models import UsageTag


def roll_usage() -> int:
    """Count what has been recorded since the last time; return how many records that were."""
    return rollups.roll([(tag.organization_id, tag.key) for tag in UsageTag.objects.order_by()])
