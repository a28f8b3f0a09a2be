"""The figures of all analyses: ``draw_*`` make one figure for a file, ``*_panels`` its panels one by one for a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, Landscape
from domainbed_adm.analysis.runs import labels, place
from domainbed_adm.method.cards import DIFFICULTIES
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from domainbed_adm.analysis.difficulty import TracedMethod

_WIDTH = 3.6

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

#: What stands below the distributions of difficulties: name in ``TracedMethod.figures``, title.
STATISTICS = {
    "variation": "coefficient of variation",
    "self_correlation": "correlation with one checkpoint earlier",
    "correctness_correlation": "correlation with final correctness",
    "linear_share": "pairs that an estimate orders alike",
}
_BANDS = ((5, 95, 0.2), (25, 75, 0.35))
_LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_DISTRIBUTION, _STATISTIC = (_WIDTH, 2.4), (_WIDTH, 2.8)
#: Of so few checkpoints each is marked: one alone is no line.
_MARKED = 12


def draw_flatness(results: Sequence[Flatness]) -> Figure:
    """Each quantity by method, a dot for each run, on source domains pooled and on test domains."""
    return figures.grid(_flatness(results), len(QUANTITIES), _size(results), legend=2)


def flatness_panels(results: Sequence[Flatness]) -> list[Figure]:
    """A figure for each quantity."""
    return [figures.grid([panel], 1, _size(results), legend=2) for panel in _flatness(results)]


def draw_landscape(landscapes: Sequence[Landscape]) -> Figure:
    """Source domains left and test domains right: the losses of all runs along a line, below them each run's plane."""
    return figures.grid(_landscape(landscapes), 2, (_WIDTH, 2.7))


def landscape_panels(landscapes: Sequence[Landscape]) -> list[Figure]:
    """The lines on source and test domains, then run by run the planes."""
    return [figures.grid([panel], 1, (_WIDTH, 2.7)) for panel in _landscape(landscapes)]


def draw_difficulty(methods: Sequence[TracedMethod]) -> Figure:
    """A column for each method with the distributions over training, below it the statistics of all methods."""
    from matplotlib.figure import Figure

    measures, panels = _measures(methods), _panels(methods)
    columns = max(len(methods), 2)
    lower = -(-len(panels) // columns)
    with figures.style():
        heights = (_DISTRIBUTION[1] * len(measures), _STATISTIC[1] * lower)
        figure = Figure(figsize=(_WIDTH * columns, sum(heights)))
        upper, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
        grid = upper.subplots(len(measures), len(methods), sharex="col", sharey="row", squeeze=False)
        lowest = below.subplots(lower, columns, squeeze=False).flat
        for i, measure in enumerate(measures):
            for j, method in enumerate(methods):
                distribution(grid[i][j], method, methods, measure)
                grid[i][j].set(title=_label(method) if i == 0 else "")
                grid[i][j].label_outer()
        for axes, what in zip_longest(lowest, panels):
            if what:
                statistic(axes, methods, what)
            else:
                axes.set_axis_off()
    return figure


def difficulty_panels(methods: Sequence[TracedMethod]) -> list[Figure]:
    """The distributions by difficulty, then the statistics."""
    distributions = [
        partial(distribution, method=method, methods=methods, measure=measure)
        for measure, method in product(_measures(methods), methods)
    ]
    statistics = [partial(statistic, methods=methods, what=what) for what in _panels(methods)]
    sized: list[tuple[Sequence[figures.Panel], tuple[float, float]]]
    sized = [(distributions, _DISTRIBUTION), (statistics, _STATISTIC)]
    return [figures.grid([panel], 1, size) for panels, size in sized for panel in panels]


def _size(results: Sequence[Flatness]) -> tuple[float, float]:
    return _WIDTH, 0.95 + 0.34 * max(2, len({result.algorithm for result in results}))


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


def _measures(methods: Sequence[TracedMethod]) -> list[str]:
    return list(dict.fromkeys(measure for method in methods for measure in method.estimates))


def _panels(methods: Sequence[TracedMethod]) -> list[str]:
    estimated = any(estimate for method in methods for estimate in method.estimates.values())
    return [what for what in STATISTICS if estimated or what != "linear_share"]


def _colour(methods: Sequence[TracedMethod], name: str) -> str:
    """Of a difficulty or an estimate: estimates follow the difficulties."""
    estimates = (estimate for method in methods for estimate in method.estimates.values() if estimate)
    names = list(dict.fromkeys([*_measures(methods), *estimates]))
    return figures.COLOURS[names.index(name) % len(figures.COLOURS)]


def distribution(axes: Axes, method: TracedMethod, methods: Sequence[TracedMethod], measure: str) -> None:
    """Median, middle half and middle 90 % of one method's scores over steps, on the same axis for every method."""
    if measure in method.estimates:
        colour = _colour(methods, measure)
        for low, high, alpha in _BANDS:
            band = _percentiles(method, measure, low, high)
            axes.fill_between(method.step, *band, color=colour, alpha=alpha, linewidth=0)
        axes.plot(method.step, *_percentiles(method, measure, 50), _marker(method) + "-", color=colour, markersize=3)
    unit = DIFFICULTIES[measure].unit if measure in DIFFICULTIES else ""
    ends = np.concatenate([_percentiles(one, measure, 95)[0] for one in methods if measure in one.estimates])
    top = 1.05 * max(ends[ends > 0], default=1.0)
    far = not unit and top > 1  # ratios may span orders of magnitude
    told = unit or ("logarithmic above 1" if far else "a ratio")
    axes.set(title=_label(method), ylabel=f"{measure} ({told})", xlabel="step")
    if far:
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter("{x:g}")  # the scale's own writes formulas, which the style draws as they are
    axes.set_ylim(0, top)
    _ticks(axes, methods)


def statistic(axes: Axes, methods: Sequence[TracedMethod], what: str) -> None:
    """One statistic of every difficulty and method over steps: colour tells the difficulty, the line the method."""
    drawn = {}
    for j, method in enumerate(methods):
        for measure, estimate in method.estimates.items():
            name = estimate if what == "linear_share" else measure
            if name:
                drawn[name] = _colour(methods, name)
                line = _marker(method) + _LINES[j % len(_LINES)]
                axes.plot(method.step, method.figures[measure][what], line, color=drawn[name], markersize=3)
    if what == "linear_share":
        axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title=STATISTICS[what], xlabel="step")
    _ticks(axes, methods)
    _legend(axes, methods, drawn)


def _marker(method: TracedMethod) -> str:
    return "o" if len(method.step) <= _MARKED else ""


def _ticks(axes: Axes, methods: Sequence[TracedMethod]) -> None:
    """Label the steps, the last one too; an earlier label that would touch it gives way."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    last = max(int(method.step[-1]) for method in methods)
    even = MaxNLocator(5, integer=True).tick_values(0, max(last, 1))
    axes.xaxis.set_major_locator(FixedLocator([*(x for x in even if 0 <= x < 0.88 * last), last]))
    axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))


def _legend(axes: Axes, methods: Sequence[TracedMethod], drawn: dict[str, str]) -> None:
    """Below the panel, where it hides no line: the difficulties, and the methods where there are several."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=name) for name, colour in drawn.items()]
    if len(methods) > 1:
        handles += [
            Line2D([], [], color="gray", linestyle=_LINES[j % len(_LINES)], label=_label(method))
            for j, method in enumerate(methods)
        ]
    columns = 3 if len(methods) == 1 or len(methods) > 3 else 2  # with difficulties in the first
    axes.legend(handles=handles, fontsize="small", ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _label(method: TracedMethod) -> str:
    """The method as the ADM paper calls it: ERM is Adam alone."""
    name = "ERM (Adam)" if method.algorithm == "ERM" else method.algorithm
    return name if len(method.traces) == 1 else f"{name}, {len(method.traces)} runs"


def _percentiles(method: TracedMethod, measure: str, *percents: float) -> np.ndarray:
    """Of shape (percents, T); NaN at a checkpoint with a score that is no finite number."""
    scores = method.scores(measure)
    return np.percentile(np.where(np.isfinite(scores), scores, np.nan), percents, axis=1)
