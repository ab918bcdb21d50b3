"""What happened. Rows here hold ids and names as plain values, so that they outlive what they speak of."""

from apps.audit.models.alerts import Alert
from apps.audit.models.exports import Export, SavedSearch
from apps.audit.models.records import ChangeRecord, OpenRequest, RequestRecord, RequestText, Status
from apps.audit.models.usage import (
    CountedTag,
    LateRecord,
    Measures,
    RollupState,
    TagDay,
    TagSeries,
    UsageDay,
    UsageHour,
    UsageSeries,
    UsageSlice,
)

__all__ = [
    "Alert",
    "ChangeRecord",
    "CountedTag",
    "Export",
    "LateRecord",
    "Measures",
    "OpenRequest",
    "RequestRecord",
    "RequestText",
    "RollupState",
    "SavedSearch",
    "Status",
    "TagDay",
    "TagSeries",
    "UsageDay",
    "UsageHour",
    "UsageSeries",
    "UsageSlice",
]
