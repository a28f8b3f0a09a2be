"""Each difficulty's distribution over training, method by method, and how well it tells samples apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np

from domainbed_adm.analysis.difficulty import TracedMethod
from domainbed_adm.method.cards import DIFFICULTIES
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What stands below the distributions: name in ``TracedMethod.figures``, title.
STATISTICS = {
    "variation": "coefficient of variation",
    "self_correlation": "rank correlation with one checkpoint earlier",
    "correctness_correlation": "rank correlation with final correctness",
    "linear_share": "pairs that an estimate orders alike",
}
_BANDS = ((5, 95, 0.2), (25, 75, 0.35))
_LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_PANEL = (3.6, 2.4)
_WITH_LEGEND = (3.6, 2.8)


def draw_difficulty(methods: Sequence[TracedMethod]) -> Figure:
    """One figure: a column for each method with the distributions, below it the statistics of all methods."""
    from matplotlib.figure import Figure

    measures, panels = _measures(methods), _panels(methods)
    columns = max(len(methods), 2)
    lower = -(-len(panels) // columns)
    with figures.style():
        heights = (_PANEL[1] * len(measures), _WITH_LEGEND[1] * lower)
        figure = Figure(figsize=(_PANEL[0] * columns, sum(heights)))
        upper, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
        grid = upper.subplots(len(measures), len(methods), sharex="col", sharey="row", squeeze=False)
        lowest = below.subplots(lower, columns, squeeze=False).flat
        for i, measure in enumerate(measures):
            for j, method in enumerate(methods):
                distribution(grid[i][j], method, methods, measure)
                grid[i][j].set(title=title(method) if i == 0 else "")
                grid[i][j].label_outer()
        for axes, what in zip_longest(lowest, panels):
            if what:
                statistic(axes, methods, what)
            else:
                axes.set_axis_off()
    return figure


def difficulty_panels(methods: Sequence[TracedMethod]) -> list[Figure]:
    """The same as figures of one panel each, for pages: the distributions by difficulty, then the statistics."""
    from matplotlib.figure import Figure

    with figures.style():
        upper = [Figure(figsize=_PANEL) for _ in _measures(methods) for _ in methods]
        lower = [Figure(figsize=_WITH_LEGEND) for _ in _panels(methods)]
        for figure, (measure, method) in zip(upper, product(_measures(methods), methods), strict=True):
            distribution(figure.subplots(), method, methods, measure)
        for figure, what in zip(lower, _panels(methods), strict=True):
            statistic(figure.subplots(), methods, what)
    return [*upper, *lower]


def _measures(methods: Sequence[TracedMethod]) -> list[str]:
    """The difficulties that any method has scores by."""
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
        axes.plot(method.step, *_percentiles(method, measure, 50), color=colour)
    unit = DIFFICULTIES[measure].unit if measure in DIFFICULTIES else ""
    axes.set(title=title(method), ylabel=f"{measure} ({unit or 'logarithmic above 1'})", xlabel="step")
    if not unit:  # ratios span orders of magnitude
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter("{x:g}")  # the scale's own writes formulas, which the style draws as they are
    ends = np.concatenate([_percentiles(one, measure, 95)[0] for one in methods if measure in one.estimates])
    axes.set_ylim(0, 1.05 * max(ends[ends > 0], default=1.0))


def statistic(axes: Axes, methods: Sequence[TracedMethod], what: str) -> None:
    """One statistic of every difficulty and method over steps: colour tells the difficulty, the line the method."""
    drawn = {}
    for j, method in enumerate(methods):
        for measure, estimate in method.estimates.items():
            name = estimate if what == "linear_share" else measure
            if name:
                drawn[name] = _colour(methods, name)
                axes.plot(method.step, method.figures[measure][what], _LINES[j % len(_LINES)], color=drawn[name])
    if what == "linear_share":
        axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title=STATISTICS[what], xlabel="step")
    _legend(axes, methods, drawn)


def _legend(axes: Axes, methods: Sequence[TracedMethod], drawn: dict[str, str]) -> None:
    """Below the panel, where it hides no line: the difficulties, and the methods where there are several."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=name) for name, colour in drawn.items()]
    if len(methods) > 1:
        styles = [_LINES[j % len(_LINES)] for j in range(len(methods))]
        handles += [
            Line2D([], [], color="gray", linestyle=line, label=title(method))
            for line, method in zip(styles, methods, strict=True)
        ]
    columns = 3 if len(methods) == 1 or len(methods) > 3 else 2  # with difficulties in the first
    axes.legend(handles=handles, fontsize="x-small", ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def title(method: TracedMethod) -> str:
    """The method as the ADM paper calls it: ERM is Adam alone."""
    name = "ERM (Adam)" if method.algorithm == "ERM" else method.algorithm
    return name if len(method.traces) == 1 else f"{name}, {len(method.traces)} runs"


def _percentiles(method: TracedMethod, measure: str, *percents: float) -> np.ndarray:
    """Of shape (percents, T); NaN at a checkpoint with a score that is no finite number."""
    scores = method.scores(measure)
    return np.percentile(np.where(np.isfinite(scores), scores, np.nan), percents, axis=1)
