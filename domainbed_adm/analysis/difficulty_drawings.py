"""The figures of ``analyze difficulty``: ``draw_difficulty`` makes one for a file, the panels one by one for a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np

from domainbed_adm.analysis.drawings import WIDTH
from domainbed_adm.method.cards import DIFFICULTIES
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from domainbed_adm.analysis.difficulty import TracedMethod

#: What stands below the distributions of difficulties: name in ``TracedMethod.figures``, title.
STATISTICS = {
    "variation": "coefficient of variation",
    "self_correlation": "correlation with one checkpoint earlier",
    "correctness_correlation": "correlation with final correctness",
    "linear_share": "pairs that an estimate orders alike",
}
_BANDS = ((5, 95, 0.2), (25, 75, 0.35))
_LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_DISTRIBUTION, _STATISTIC = (WIDTH, 2.4), (WIDTH, 2.8)
#: Of so few checkpoints each is marked: one alone is no line.
_MARKED = 12


def draw_difficulty(methods: Sequence[TracedMethod]) -> Figure:
    """A column for each method with the distributions over training, below it the statistics of all methods."""
    from matplotlib.figure import Figure

    measures, panels = _measures(methods), _panels(methods)
    columns = max(len(methods), 2)
    lower = -(-len(panels) // columns)
    with figures.style():
        heights = (_DISTRIBUTION[1] * len(measures), _STATISTIC[1] * lower)
        figure = Figure(figsize=(WIDTH * columns, sum(heights)))
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
