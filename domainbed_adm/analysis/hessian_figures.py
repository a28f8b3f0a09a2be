"""Figures of flatness: each quantity by method, a dot for each run, on source domains pooled and on test domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from domainbed_adm.analysis.result_files import DomainFlatness, Flatness
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


def draw_flatness(results: Sequence[Flatness]) -> Figure:
    """One figure, a panel for each quantity side by side."""
    panels = [partial(_panel, results=results, quantity=quantity) for quantity in QUANTITIES]
    return figures.grid(panels, len(panels), _size(results), legend=True)


def flatness_panels(results: Sequence[Flatness]) -> list[Figure]:
    """The same as figures of one panel each, for pages."""
    panels = [partial(_panel, results=results, quantity=quantity) for quantity in QUANTITIES]
    return [figures.grid([panel], 1, _size(results), legend=True) for panel in panels]


def _size(results: Sequence[Flatness]) -> tuple[float, float]:
    return _WIDTH, _FRAME + _ROW * max(2, len(_methods(results)))


def _methods(results: Sequence[Flatness]) -> list[str]:
    """Rows from top to bottom: the grid's order, then the others."""
    places = {name: i for i, name in enumerate(METHODS)}
    names = {flatness.algorithm for flatness in results}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def _panel(axes: Axes, results: Sequence[Flatness], quantity: str) -> None:
    methods, value = _methods(results), QUANTITIES[quantity]
    shown: list[float] = []
    for role, name, colour, marker, shift in _ROLES:
        dots = [(value(d), -methods.index(result.algorithm) + shift) for result in results for d in result.of(role)]
        shown += [x for x, _ in dots if math.isfinite(x)]
        xs, ys = [x for x, _ in dots], [y for _, y in dots]
        axes.plot(xs, ys, marker, color=colour, alpha=0.85, markersize=5, markeredgewidth=0, label=name)
    axes.set_yticks(range(0, -len(methods), -1), labels=methods)
    axes.set_ylim(-len(methods) + 0.5, 0.5)
    axes.grid(False, axis="y")
    if shown and min(shown) > 0:
        figures.logarithmic(axes, "x")
    rho = sorted({result.rho for result in results})
    at = f", rho = {', '.join(f'{radius:g}' for radius in rho)}" if "SAM" in quantity else ""
    axes.set_title(quantity + at, loc="right")  # centred, the longest would leave the figure
