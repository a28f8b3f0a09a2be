"""Figures of flatness: each quantity by method, a dot for each run, on source domains pooled and on test domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from domainbed_adm.analysis.hessian_file import DomainFlatness, Flatness
from domainbed_adm.method.cards import METHODS
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Title and value of each panel.
QUANTITIES: dict[str, Callable[[DomainFlatness], float]] = {
    "largest Hessian eigenvalue": lambda domain: domain.largest_eigenvalue,
    "trace of the Hessian": lambda domain: domain.trace,
    "rise of the loss by one SAM step": lambda domain: domain.sharpness,
}
#: Role, name, colour, marker, and where in the method's row.
_ROLES = (
    ("pooled", "source domains", figures.COLOURS[0], "o", 0.16),
    ("test", "test domain", figures.COLOURS[3], "D", -0.16),
)
_WIDTH, _ROW, _FRAME = 3.6, 0.34, 0.95
#: Ratio of the ends of an axis beyond which labels at 2 and 5 would run into each other.
_FAR = 300


def draw_flatness(found: Sequence[Flatness]) -> Figure:
    """One figure, a panel for each quantity side by side."""
    from matplotlib.figure import Figure

    with figures.style():
        figure = Figure(figsize=(_WIDTH * len(QUANTITIES), _height(found)))
        for axes, quantity in zip(figure.subplots(1, len(QUANTITIES)), QUANTITIES, strict=True):
            _panel(axes, found, quantity)
        _legend(figure)
    return figure


def flatness_panels(found: Sequence[Flatness]) -> list[Figure]:
    """The same as figures of one panel each, for pages."""
    from matplotlib.figure import Figure

    drawn = []
    with figures.style():
        for quantity in QUANTITIES:
            figure = Figure(figsize=(_WIDTH, _height(found)))
            _panel(figure.subplots(), found, quantity)
            _legend(figure)
            drawn.append(figure)
    return drawn


def _height(found: Sequence[Flatness]) -> float:
    return _FRAME + _ROW * max(2, len(_methods(found)))


def _methods(found: Sequence[Flatness]) -> list[str]:
    """Rows from top to bottom: the grid's order, then the others."""
    names = {name: i for i, name in enumerate(METHODS)}
    return sorted({one.algorithm for one in found}, key=lambda name: (names.get(name, len(names)), name))


def _panel(axes: Axes, found: Sequence[Flatness], quantity: str) -> None:
    methods, value = _methods(found), QUANTITIES[quantity]
    shown: list[float] = []
    for role, name, colour, marker, shift in _ROLES:
        rows = [(-methods.index(one.algorithm) + shift, value(domain)) for one in found for domain in one.of(role)]
        shown += [x for _, x in rows if math.isfinite(x)]
        axes.plot(
            [x for _, x in rows], [y for y, _ in rows], marker, color=colour, alpha=0.85, markersize=5,
            markeredgewidth=0, label=name,
        )  # fmt: skip
    axes.set_yticks(range(0, -len(methods), -1), labels=methods)
    axes.set_ylim(-len(methods) + 0.5, 0.5)
    axes.grid(False, axis="y")
    if shown and min(shown) > 0:
        logarithmic(axes, "x")
    rho = sorted({one.rho for one in found})
    at = f", rho = {', '.join(f'{one:g}' for one in rho)}" if "SAM" in quantity else ""
    axes.set_title(quantity + at, loc="right")  # centred, the longest would leave the figure


def _legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis that is labelled at 1, 2 and 5, or where it spans far at 1 alone."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _FAR * low else (1,)))
    axis.set_major_formatter("{x:g}")  # the scale's own writes formulas, which the style draws as they are
    axis.set_minor_locator(NullLocator())
