"""What the page's figures and tables hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.audit.usage import Group, Sums
from controlplane.usage.words import dollars, milliseconds


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with what it was in the period before, and the records behind it."""

    title: str
    value: str
    exact: str
    change: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a breakdown."""

    name: str
    sums: Sums
    share: str = ""
    records: str = ""
    refused: str = ""
    failed: str = ""
    page: str = ""

    @property
    def spend(self) -> str:
        """US dollars."""
        return dollars(self.sums.cost_nano_usd)

    @property
    def requests(self) -> str:
        """How many requests."""
        return f"{self.sums.requests:,}"

    @property
    def blocked(self) -> str:
        """How many were refused."""
        return f"{self.sums.blocked:,}"

    @property
    def errors(self) -> str:
        """How many failed."""
        return f"{self.sums.errors:,}"

    @property
    def tokens_input(self) -> str:
        """How many tokens went in."""
        return f"{self.sums.tokens_input:,}"

    @property
    def tokens_output(self) -> str:
        """How many tokens came out."""
        return f"{self.sums.tokens_output:,}"

    @property
    def latencies(self) -> list[str]:
        """Within which 50, 95 and 99 of a hundred successful requests were answered."""
        return [milliseconds(value) for value in self.sums.percentiles]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A table of usage by one thing."""

    title: str
    rows: tuple[Row, ...]
    empty: str
    has_latency: bool = True


def line(name: str, sums: Sums, total: Sums) -> Row:
    """Return a line with its share of the total, by money or, where nothing was spent, by requests."""
    whole, part = total.cost_nano_usd or total.requests, sums.cost_nano_usd if total.cost_nano_usd else sums.requests
    return Row(name, sums, f"{part / whole * 100:.1f}" if whole else "0")


def rest(dimension: str, groups: Sequence[Group], total: Sums) -> Sums | None:
    """Return what the groups shown leave; ``None`` where not every request is in a group."""
    if dimension in ("policy_id", "error_code"):
        return None
    return total - sum((group.sums for group in groups), Sums())
