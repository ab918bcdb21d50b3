"""Which period the page is about, and which one it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from apps.audit.usage import DAY, HOUR, Period

MOST_DAYS = 366
EARLIEST = date(2000, 1, 1)


class UsageForm(forms.Form):
    """Which period, and of which organization."""

    PERIODS = (
        ("today", "Today"),
        ("7d", "Last 7 days"),
        ("30d", "Last 30 days"),
        ("month", "This month"),
        ("custom", "From … to …"),
    )
    organization = forms.UUIDField(required=False, widget=forms.HiddenInput)
    application = forms.UUIDField(required=False, widget=forms.HiddenInput)
    user = forms.UUIDField(required=False, widget=forms.HiddenInput)
    period = forms.ChoiceField(choices=PERIODS, required=False)
    first = forms.DateField(label="From (UTC)", required=False)
    last = forms.DateField(label="To, included", required=False)

    def clean(self) -> dict[str, Any]:
        """Check the chosen days: both there, in order, none in the future, not too many."""
        data = super().clean() or {}
        if data.get("period") != "custom" or self.errors:
            return data
        first, last, today = data.get("first"), data.get("last"), timezone.now().date()
        if first is None or last is None:
            self.add_error("first" if first is None else "last", "Choose a day, such as 2026-01-31.")
        elif first > last:
            self.add_error("last", "The last day comes before the first one.")
        elif last > today:
            self.add_error("last", f"This day lies in the future. Today is {today} (UTC).")
        elif first < EARLIEST:
            self.add_error("first", f"There is nothing before {EARLIEST}.")
        elif (last - first).days >= MOST_DAYS:
            self.add_error("first", f"Choose at most {MOST_DAYS} days; these are {(last - first).days + 1:,}.")
        return data


@dataclass(frozen=True, slots=True)
class Span:
    """A period, the one before it, and the unit of its charts."""

    now: Period
    before: Period
    unit: timedelta
    title: str
    compared_with: str


def span_of(chosen: Mapping[str, Any], now: datetime) -> Span:
    """Return the period that was chosen, and as much time before it."""
    today, period = _midnight(now.date()), chosen.get("period") or "7d"
    if period == "custom":
        first, end = _midnight(chosen["first"]), _midnight(chosen["last"]) + DAY
        before = Period(first - (end - first), first)
        unit = HOUR if end - first <= 2 * DAY else DAY
        if end <= now:
            return Span(Period(first, end), before, unit, f"{chosen['first']} to {chosen['last']}", "the days before")
        return _so_far(first, first - (end - first), now, f"{chosen['first']} to {chosen['last']}", "the days before")
    if period == "today":
        return _so_far(today, today - DAY, now, "Today", "yesterday")
    if period == "month":
        first = today.replace(day=1)
        return _so_far(first, (first - DAY).replace(day=1), now, f"{first:%B %Y}", "last month")
    days = {"7d": 7, "30d": 30}[period]
    first = today - (days - 1) * DAY
    return _so_far(first, first - days * DAY, now, f"Last {days} days", f"the {days} days before")


def _so_far(first: datetime, before: datetime, now: datetime, title: str, compared_with: str) -> Span:
    """Return a period that is not over: it is compared with as many whole hours of the one before."""
    whole_hours = (now - first) // HOUR * HOUR
    end = _midnight(now.date()) + DAY
    unit = HOUR if end - first <= 2 * DAY else DAY
    said = f"{compared_with}, up to the same hour"
    return Span(Period(first, end), Period(before, min(before + whole_hours, first)), unit, title, said)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
