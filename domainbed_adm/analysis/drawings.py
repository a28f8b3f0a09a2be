"""The figures of flatness and landscapes: ``draw_*`` make one for a file, ``*_panels`` its panels one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, Landscape
from domainbed_adm.analysis.runs import labels, place
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of a panel, in inches.
WIDTH = 3.6

#: Title and value of each panel on flatness.
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
_LEVELS = 12
#: A loss that spans more than this is drawn on a logarithmic scale.
_WIDE = 10.0
#: What is beyond it is drawn as what is infinite: the scale would overflow.
_LARGEST = 1e100
_KINDS = ("source", "test")


def draw_flatness(results: Sequence[Flatness]) -> Figure:
    """Each quantity by method, a dot for each run, on source domains pooled and on test domains."""
    return figures.grid(_flatness(results), len(QUANTITIES), _size(results), legend=2)


def flatness_panels(results: Sequence[Flatness]) -> list[Figure]:
    """A figure for each quantity."""
    return [figures.grid([panel], 1, _size(results), legend=2) for panel in _flatness(results)]


def draw_landscape(landscapes: Sequence[Landscape]) -> Figure:
    """Source domains left and test domains right: the losses of all runs along a line, below them each run's plane."""
    return figures.grid(_landscape(landscapes), 2, (WIDTH, 2.7))


def landscape_panels(landscapes: Sequence[Landscape]) -> list[Figure]:
    """The lines on source and test domains, then run by run the planes."""
    return [figures.grid([panel], 1, (WIDTH, 2.7)) for panel in _landscape(landscapes)]


def _size(results: Sequence[Flatness]) -> tuple[float, float]:
    return WIDTH, 0.95 + 0.34 * max(2, len({result.algorithm for result in results}))


def _flatness(results: Sequence[Flatness]) -> list[figures.Panel]:
    return [partial(_quantity, results=results, quantity=quantity) for quantity in QUANTITIES]


def _quantity(axes: Axes, results: Sequence[Flatness], quantity: str) -> None:
    methods, value = sorted({result.algorithm for result in results}, key=place), QUANTITIES[quantity]
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


def _landscape(landscapes: Sequence[Landscape]) -> list[figures.Panel]:
    levels = _levels(landscapes)
    return [
        *(partial(_lines, landscapes=landscapes, kind=kind) for kind in _KINDS),
        *(
            partial(_plane, landscape=landscape, kind=kind, name=name, levels=levels)
            for landscape, name in zip(landscapes, _names(landscapes), strict=True)
            for kind in _KINDS
        ),
    ]


def _names(landscapes: Sequence[Landscape]) -> list[str]:
    algorithms = [landscape.algorithm for landscape in landscapes]
    alone = len(set(algorithms)) == len(landscapes)
    return algorithms if alone else labels([msgspec.structs.asdict(landscape) for landscape in landscapes])


def _lines(axes: Axes, landscapes: Sequence[Landscape], kind: str) -> None:
    """All runs' lines. Where a method has several, its runs share a colour and one entry of the legend."""
    methods = dict.fromkeys(landscape.algorithm for landscape in landscapes)
    by_method = 1 < len(methods) < len(landscapes)
    keys = [landscape.algorithm for landscape in landscapes] if by_method else _names(landscapes)
    colours = {key: figures.COLOURS[i % len(figures.COLOURS)] for i, key in enumerate(dict.fromkeys(keys))}
    seen: set[str] = set()
    for landscape, key in zip(landscapes, keys, strict=True):
        line = _losses(landscape, f"{kind}_1d")
        axes.plot(landscape.alphas, line, color=colours[key], label=None if key in seen else key)
        seen.add(key)
    low, high = _span(landscapes, "1d")
    if high > _WIDE * low > 0:
        figures.logarithmic(axes, "y")
        axes.set_ylim(low / 1.1, high * 1.1)
    else:
        margin = max(0.05 * (high - low), 1e-9 * abs(low)) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title=_title(landscapes, kind), xlabel="step along a random direction", ylabel="loss (nats)")
    axes.legend(fontsize="small")


def _plane(axes: Axes, landscape: Landscape, kind: str, name: str, levels: np.ndarray) -> None:
    """Contours of one run's loss; ``levels`` are common to all that are compared."""
    alphas = landscape.alphas_2d
    losses = np.nan_to_num(_losses(landscape, f"{kind}_2d"), nan=np.inf).clip(levels[0], levels[-1])
    areas = axes.contourf(alphas, alphas, losses.T, levels, cmap="viridis")
    axes.contour(alphas, alphas, losses.T, levels, colors="white", linewidths=0.4)
    axes.plot(0, 0, "+", color="white")
    axes.figure.colorbar(areas, ax=axes, format="{x:.3g}")
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set(title=f"{name}\n{_title([landscape], kind)}", xlabel="first direction", ylabel="second direction")


def _levels(landscapes: Sequence[Landscape]) -> np.ndarray:
    """From the lowest to the highest loss of all planes, evenly or, where it spans far, in equal ratios."""
    low, high = _span(landscapes, "2d")
    if high > _WIDE * low > 0:
        return np.geomspace(low, high, _LEVELS)
    return np.linspace(low, high if high - low > 1e-9 * abs(low) else low + max(1.0, abs(low)), _LEVELS)


def _losses(landscape: Landscape, name: str) -> np.ndarray:
    losses: np.ndarray = getattr(landscape, name)
    return np.where(np.abs(losses) < _LARGEST, losses, np.nan)


def _span(landscapes: Sequence[Landscape], over: str) -> tuple[float, float]:
    """Lowest and highest loss of all that can be drawn; 0 and 1 where there is none."""
    losses = np.concatenate([_losses(each, f"{kind}_{over}").ravel() for each in landscapes for kind in _KINDS])
    finite = losses[np.isfinite(losses)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _title(landscapes: Sequence[Landscape], kind: str) -> str:
    if kind == "source":
        return "source domains"
    names = {landscape.test_name for landscape in landscapes}
    return f"test domain {names.pop()}" if len(names) == 1 else "test domains"
