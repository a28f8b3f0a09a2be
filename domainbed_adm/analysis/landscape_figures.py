"""Figures of the loss around models: along one direction for all runs at once, over two for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from domainbed_adm.analysis.hessian_figures import logarithmic
from domainbed_adm.analysis.landscape_file import Landscape
from domainbed_adm.analysis.runs import labels
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (3.6, 2.7)
_LEVELS = 12
#: A loss that spans more than this is drawn on a logarithmic scale.
_WIDE = 10.0
#: What is beyond it is drawn as what is infinite: the scale would overflow.
_LARGEST = 1e100
_KINDS = ("source", "test")


def draw_landscape(found: Sequence[Landscape]) -> Figure:
    """One figure, source domains left and test domains right: the lines of all runs, below them each run's plane."""
    from matplotlib.figure import Figure

    rows = 1 + len(found)
    with figures.style():
        figure = Figure(figsize=(_PANEL[0] * 2, _PANEL[1] * rows))
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes, kind in zip(grid[0], _KINDS, strict=True):
            _lines(axes, found, kind)
        for row, landscape, name in zip(grid[1:], found, _names(found), strict=True):
            for axes, kind in zip(row, _KINDS, strict=True):
                _plane(axes, landscape, kind, name, _levels(found))
    return figure


def landscape_panels(found: Sequence[Landscape]) -> list[Figure]:
    """The same as figures of one panel each, for pages: the lines on source and test domains, then run by run."""
    from matplotlib.figure import Figure

    drawn = []
    with figures.style():
        for kind in _KINDS:
            drawn.append(Figure(figsize=_PANEL))
            _lines(drawn[-1].subplots(), found, kind)
        for landscape, name in zip(found, _names(found), strict=True):
            for kind in _KINDS:
                drawn.append(Figure(figsize=_PANEL))
                _plane(drawn[-1].subplots(), landscape, kind, name, _levels(found))
    return drawn


def _names(found: Sequence[Landscape]) -> list[str]:
    """Of each run; the method alone where that tells them apart."""
    algorithms = [one.algorithm for one in found]
    return algorithms if len(set(algorithms)) == len(found) else labels([one.about for one in found])


def _lines(axes: Axes, found: Sequence[Landscape], kind: str) -> None:
    """All runs' lines. Where a method has several, its runs share a colour and one entry of the legend."""
    names = _names(found)
    methods = list(dict.fromkeys(one.algorithm for one in found))
    keys = [one.algorithm for one in found] if 1 < len(methods) < len(found) else names
    colours = {key: figures.COLOURS[i % len(figures.COLOURS)] for i, key in enumerate(dict.fromkeys(keys))}
    seen: set[str] = set()
    for landscape, key in zip(found, keys, strict=True):
        line = getattr(landscape, f"{kind}_1d")
        line = np.ma.masked_where(~_drawable(line), line)
        axes.plot(landscape.alphas, line, color=colours[key], label=None if key in seen else key)
        seen.add(key)
    values = _finite([getattr(one, f"{each}_1d") for one in found for each in _KINDS])
    low, high = float(values.min()), float(values.max())
    if high > _WIDE * low > 0:
        logarithmic(axes, "y")
        axes.set_ylim(low / 1.1, high * 1.1)
    else:
        margin = max(0.05 * (high - low), 1e-9 * abs(low)) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title=_title(found, kind), xlabel="step along a random direction", ylabel="loss (nats)")
    axes.legend(fontsize="x-small")


def _plane(axes: Axes, landscape: Landscape, kind: str, name: str, levels: np.ndarray) -> None:
    """Contours of one run's loss; ``levels`` are common to all that are compared."""
    alphas = landscape.alphas_2d
    values = np.clip(np.nan_to_num(getattr(landscape, f"{kind}_2d"), nan=np.inf), levels[0], levels[-1])
    areas = axes.contourf(alphas, alphas, values.T, levels, cmap="viridis")
    axes.contour(alphas, alphas, values.T, levels, colors="white", linewidths=0.4)
    axes.plot(0, 0, "+", color="white")
    axes.figure.colorbar(areas, ax=axes, format="{x:.3g}")
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set(title=f"{name}\n{_title([landscape], kind)}", xlabel="first direction", ylabel="second direction")


def _levels(found: Sequence[Landscape]) -> np.ndarray:
    """From the lowest to the highest loss of all planes, evenly or, where it spans far, in equal ratios."""
    values = _finite([getattr(one, f"{kind}_2d") for one in found for kind in _KINDS])
    low, high = float(values.min()), float(values.max())
    if high > _WIDE * low > 0:
        return np.geomspace(low, high, _LEVELS)
    return np.linspace(low, high if high - low > 1e-9 * abs(low) else low + max(1.0, abs(low)), _LEVELS)


def _finite(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """All entries that can be drawn; 0 and 1 where there is none."""
    values = np.concatenate([array.ravel() for array in arrays])
    known = values[_drawable(values)]
    return known if len(known) else np.array([0.0, 1.0])


def _drawable(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.abs(values) < _LARGEST


def _title(found: Sequence[Landscape], kind: str) -> str:
    if kind == "source":
        return "source domains"
    names = {str(one.about["test_name"]) for one in found}
    return f"test domain {names.pop()}" if len(names) == 1 else "test domains"
