"""Charts of single points, with their values on hover: a point is a ``<g class="tip">`` with a ``<title>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from domainbed_adm.report.axes import across, roomy, svg, up
from domainbed_adm.system.figures import COLOURS, page_colour

#: Of a chart, which shrinks to its column; of a row; below the panel for numbers.
_WIDTH, _ROW, _AXIS = 560, 22, 26
#: Pixels that a letter of a name takes at the size of the labels, and most of them for names.
_LETTER, _MOST_LABEL = 8.2, 240.0
_COLOUR = {"better": COLOURS[2], "worse": COLOURS[3]}


class Interval(NamedTuple):
    """A row of a forest plot."""

    label: str
    value: float
    interval: tuple[float, float] | None
    kind: str  # "better" and "worse" have colours of their own
    words: str  # on hover


class Point(NamedTuple):
    """A point of two numbers."""

    label: str
    x: float
    y: float
    words: str  # on hover


def forest(rows: Sequence[Interval]) -> Markup:
    """A row for each: a dot at its value, a line over its interval; a line down the chart at 0."""
    ends = [0.0, *(row.value for row in rows), *(end for row in rows for end in row.interval or ())]
    names = [_shortened(row.label) for row in rows]
    left = min(_MOST_LABEL, 12 + _LETTER * max(map(len, names)))
    height = _ROW * len(rows) + 6
    axis = roomy(min(ends), max(ends), left, _WIDTH - 14)
    x = axis.place
    parts = across(axis, 0, height, "+")
    parts.append(f'<path class="zero" d="M{x(0):.1f} 0V{height}"/>')
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        y, colour = _ROW * i + 15, page_colour(_COLOUR.get(row.kind, COLOURS[0]))
        line = f"M{x(row.interval[0]):.1f} {y}H{x(row.interval[1]):.1f}" if row.interval else ""
        parts.append(
            f'<g class="tip"><title>{escape(row.words)}</title><rect y="{y - 11}" width="{_WIDTH}" height="{_ROW}" '
            f'fill="none"/><text x="{left - 10:.0f}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<path d="{line}" style="stroke: {colour}" stroke-width="2.2"/>'
            f'<circle cx="{x(row.value):.1f}" cy="{y}" r="4.5" style="fill: {colour}"/></g>'
        )
    return svg(parts, _WIDTH, height + _AXIS)


def against(points: Sequence[Point]) -> Markup:
    """Named dots over two axes that begin where the points do."""
    left, height = 44.0, 250
    x_axis = roomy(min(0.0, *(p.x for p in points)), max(p.x for p in points), left, _WIDTH - 16)
    y_axis = roomy(min(p.y for p in points), max(p.y for p in points), height - 8, 14)
    parts = [*across(x_axis, 0, height), *up(y_axis, left, _WIDTH)]
    taken: list[tuple[float, float]] = []
    for i, point in enumerate(sorted(points, key=lambda one: one.y)):
        px, py = x_axis.place(point.x), y_axis.place(point.y)
        name, colour = _shortened(point.label), page_colour(COLOURS[i % (len(COLOURS) - 1)])
        width = _LETTER * len(name)
        before = px + 10 + width > _WIDTH
        start = px - 10 - width if before else px + 10
        # a name that would lie on another is left to the hover and the table
        free = all(abs(py - other) > 13 or abs(start - begin) > _MOST_LABEL / 2 for begin, other in taken)
        taken += [(start, py)] if free else []
        place = f'x="{px - 9:.1f}" text-anchor="end"' if before else f'x="{px + 9:.1f}"'
        label = f'<text {place} y="{py + 4:.1f}">{escape(name)}</text>' if free else ""
        parts.append(
            f'<g class="tip"><title>{escape(point.words)}</title>'
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" style="fill: {colour}"/>'
            f"{label}</g>"
        )
    return svg(parts, _WIDTH, height + _AXIS)


def _shortened(name: str) -> str:
    most = int(_MOST_LABEL / _LETTER) - 2
    return name if len(name) <= most else f"{name[: most - 1]}…"
