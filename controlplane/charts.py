"""Bar and line charts as shapes that a template draws as SVG: no script, no style, and a table beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720.0, 160.0
"""Of the drawing, in its own units; a browser stretches it to the page."""
_GAP = 0.2


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle: its class chooses its colour."""

    x: str
    y: str
    width: str
    height: str
    kind: str


@dataclass(frozen=True, slots=True)
class Slot:
    """What stands above one day or hour, with the sentence that says it."""

    x: str
    width: str
    says: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line."""

    points: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing: its title, what its height means, and who is who."""

    title: str
    top: str
    legend: tuple[tuple[str, str], ...]
    slots: tuple[Slot, ...]
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the values of each bar or point: its name for people, the class of its colour."""

    name: str
    style: str


def bars(title: str, top: str, kinds: Sequence[Kind], columns: Sequence[tuple[str, Sequence[float]]]) -> Chart:
    """Draw values that stand on each other: for each column what it says and its values, one for each kind."""
    highest = max((sum(values) for _, values in columns), default=0) or 1
    slots = []
    for number, (says, values) in enumerate(columns):
        left, width = _place(number, len(columns))
        drawn, base = [], HEIGHT
        for kind, value in zip(kinds, values, strict=True):
            height = value / highest * HEIGHT
            base -= height
            if value > 0:
                drawn.append(Bar(_n(left), _n(base), _n(width), _n(max(height, 0.5)), kind.style))
        slots.append(_slot(number, len(columns), says, drawn))
    return Chart(title, top, tuple((kind.name, kind.style) for kind in kinds), tuple(slots))


def lines(title: str, top: str, kinds: Sequence[Kind], columns: Sequence[tuple[str, Sequence[float | None]]]) -> Chart:
    """Draw values as lines, one for each kind; where there is none, the line goes on to the next."""
    highest = max((value for _, values in columns for value in values if value is not None), default=0) or 1
    drawn = []
    for index, kind in enumerate(kinds):
        values = [(number, values[index]) for number, (_, values) in enumerate(columns)]
        points = [
            f"{_n((number + 0.5) * WIDTH / len(columns))},{_n(HEIGHT - value / highest * HEIGHT)}"
            for number, value in values
            if value is not None
        ]
        # A point alone has no length: it is drawn as a dash.
        points += [f"{_n(float(points[0].split(',')[0]) + 4)},{points[0].split(',')[1]}"] if len(points) == 1 else []
        drawn.append(Line(" ".join(points), kind.style))
    slots = [_slot(number, len(columns), says, ()) for number, (says, _) in enumerate(columns)]
    return Chart(title, top, tuple((kind.name, kind.style) for kind in kinds), tuple(slots), tuple(drawn))


def _slot(number: int, count: int, says: str, drawn: Sequence[Bar]) -> Slot:
    return Slot(_n(number * WIDTH / count), _n(WIDTH / count), says, tuple(drawn))


def _place(number: int, count: int) -> tuple[float, float]:
    step = WIDTH / count
    return number * step + step * _GAP / 2, step * (1 - _GAP)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
