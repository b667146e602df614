"""Line charts as inline SVG, coloured by the page's CSS variables so that they fit light, dark and print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 8  # of the page's palette, --c0 to --c7
MOST_POINTS = 300  # of a line; more are averaged in groups
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 32, 34  # around a panel, in pixels
LETTER = 5.6  # width of a character, roughly


@dataclass(frozen=True)
class Line:
    """One curve. `colour` counts through the palette; dots mark the points of a line that has few."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at `x`, across all panels; `kind` gives its look: lr, restart or stop."""

    x: float
    label: str
    kind: str


@dataclass(frozen=True)
class Panel:
    """One vertical axis with its lines; it begins at 0."""

    title: str
    lines: Sequence[Line]
    height: int = 120


def chart(panels: Sequence[Panel], x_label: str, *, marks: Sequence[Mark] = (), width: int = 360, about: str) -> str:
    """Panels above one another with a common horizontal axis. `about` is read out to those who can't see it."""
    values = [x for p in panels for line in p.lines for x, _ in line.points]
    x_ticks = ticks(min(values, default=0), max(values, default=1), 6)
    low, high = min([*values, x_ticks[0]]), max([*values, x_ticks[-1]])
    height = sum(p.height + TOP for p in panels) + BOTTOM

    def at(x: float) -> float:
        return LEFT + (x - low) / ((high - low) or 1) * (width - LEFT - RIGHT)

    parts, top = [], 0
    for panel in panels:
        parts.append(_panel(panel, at, top + TOP, width, x_ticks))
        top += TOP + panel.height
    parts += [
        f'<text class="tick" x="{at(x):.1f}" y="{top + 14}" text-anchor="middle">{number(x)}</text>' for x in x_ticks
    ]
    parts.append(f'<text class="axis" x="{width - RIGHT}" y="{top + 29}" text-anchor="end">{escape(x_label)}</text>')
    parts += [_mark(mark, at(mark.x), top, width, n) for n, mark in enumerate(marks)]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(about)}">{"".join(parts)}</svg>'
    )


def _panel(panel: Panel, at: Callable[[float], float], top: int, width: int, x_ticks: Sequence[float]) -> str:
    values = [y for line in panel.lines for _, y in line.points]
    y_ticks = ticks(0, max(values, default=1), panel.height // 30)
    high = y_ticks[-1]
    bottom = top + panel.height

    def up(y: float) -> float:
        return bottom - y / high * panel.height

    parts = [f'<text class="title" x="0" y="{top - 10}">{escape(panel.title)}</text>']
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 5}" y="{up(y) + 3.5:.1f}" text-anchor="end">{number(y)}</text>')
    for line in panel.lines:
        places = [(at(x), up(y)) for x, y in thinned(line.points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        title, colour = f"<title>{escape(line.label)}</title>", _colour(line)
        if len(places) > 1:
            parts.append(f'<path class="line {colour}" d="{path}">{title}</path>')
        if line.dots or len(places) == 1:
            parts += [
                f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>' for x, y in places
            ]
    return "".join(parts)


def _mark(mark: Mark, x: float, bottom: int, width: int, number: int) -> str:
    """A vertical line with its label beside it, on the side that has room; neighbours are set in different rows."""
    left = x + len(mark.label) * LETTER > width - RIGHT
    anchor, place = ("end", x - 3) if left else ("start", x + 3)
    row = TOP + 8 + number % 4 * 11
    return (
        f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="note {mark.kind}" x="{place:.1f}" y="{row}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def _colour(line: Line) -> str:
    """The line's class: a colour of the palette, dashed where the palette begins anew."""
    return f"k{line.colour % COLOURS}{' again' if line.colour >= COLOURS else ''}"


def legend(lines: Sequence[Line]) -> str:
    """The names of lines beside their colours."""
    entries = "".join(f'<li><i class="{_colour(line)}"></i>{escape(line.label)}</li>' for line in lines)
    return f'<ul class="legend">{entries}</ul>'


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers that cover [low, high], at most `most` + 1 of them."""
    if not high > low:
        high = low + 1
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def number(value: float) -> str:
    """`12`, `0.25`, `3k`: as short as an axis needs."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.6g}"


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points, each the mean of as many neighbours."""
    group = -(-len(points) // MOST_POINTS) or 1
    groups = [points[i : i + group] for i in range(0, len(points), group)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
