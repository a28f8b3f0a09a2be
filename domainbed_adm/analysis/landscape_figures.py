"""Figures of the loss around models: along one direction for all runs at once, over two for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from domainbed_adm.analysis.result_files import Landscape
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


def draw_landscape(landscapes: Sequence[Landscape]) -> Figure:
    """One figure, source domains left and test domains right: the lines of all runs, below them each run's plane."""
    return figures.grid(_panels(landscapes), 2, _PANEL)


def landscape_panels(landscapes: Sequence[Landscape]) -> list[Figure]:
    """The same as figures of one panel each, for pages: the lines on source and test domains, then run by run."""
    return [figures.grid([panel], 1, _PANEL) for panel in _panels(landscapes)]


def _panels(landscapes: Sequence[Landscape]) -> list[figures.Panel]:
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
    """Of each run; the method alone where that tells them apart."""
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
    """One array of losses, NaN where they cannot be drawn."""
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
