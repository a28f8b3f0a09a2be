"""Axes of the page's charts, which are drawn as SVG by hand: small, in the page's colours, quickly made.

Numbers are in user units, one to a pixel at full width; text takes the page's font. What a program that draws needs
besides is in report.js, which adds it to a chart that is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

#: From a value to its place.
Scale: TypeAlias = "Callable[[float], float]"


class Axis(NamedTuple):
    """From values to user units, and the values to mark."""

    place: Scale
    marks: list[float]


def linear(low: float, high: float, start: float, end: float, most: int = 7, whole: bool = False) -> Axis:
    """An axis over exactly these values, with at most ``most`` + 1 round values to mark, ``whole`` numbers or any."""
    magnitude = 10.0 ** math.floor(math.log10(high - low))
    steps = (magnitude / 5, magnitude / 2, magnitude, 2 * magnitude, 5 * magnitude, 10 * magnitude)
    step = next(step for step in steps if (high - low) / step <= most and (step >= 1 or not whole))
    marks = [round(step * i, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(lambda value: start + (value - low) / (high - low) * (end - start), marks)


def roomy(low: float, high: float, start: float, end: float, most: int = 7) -> Axis:
    """A linear axis with a little room at both ends."""
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return linear(low - room, high + room, start, end, most)


def logarithmic(low: float, high: float, start: float, end: float) -> Axis:
    """A logarithmic axis with a little room, marked at 1 and 3 of each decade, or at every nth 1 of many."""
    low, high = low / 1.1, high * 1.1
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first <= 4:
        marks = [float(f"{digit}e{decade}") for decade in range(first, last + 1) for digit in (1, 3)]
    else:
        marks = [float(f"1e{decade}") for decade in range(first, last + 1, math.ceil((last - first) / 7))]
    length = math.log(high / low)
    inside = [mark for mark in marks if low <= mark <= high]
    return Axis(lambda value: start + math.log(value / low) / length * (end - start), inside)


def across(axis: Axis, top: float, height: float, sign: str = "") -> list[str]:
    """Vertical rules of a horizontal axis, ``height`` long from ``top``, with their numbers below, signed or not."""
    return [
        f'<path class="rule" d="M{axis.place(mark):.1f} {top:g}v{height:g}"/><text x="{axis.place(mark):.1f}" '
        f'y="{top + height + 18:g}" text-anchor="middle">{format(mark, sign + "g") if mark else 0}</text>'
        for mark in axis.marks
    ]


def up(axis: Axis, left: float, right: float, named: bool = True) -> list[str]:
    """Horizontal rules of a vertical axis, with their numbers before them where they are ``named``."""
    rules = [f'<path class="rule" d="M{left:g} {axis.place(mark):.1f}H{right:g}"/>' for mark in axis.marks]
    numbers = [
        f'<text x="{left - 6:g}" y="{axis.place(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>'
        for mark in axis.marks
    ]
    return [*rules, *(numbers if named else ())]


def svg(parts: Sequence[str], width: float, height: float) -> Markup:
    """The whole; every name in ``parts`` has been escaped."""
    body = "".join(parts)
    return Markup(
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-size="13" fill="currentColor">{body}</svg>'
    )
