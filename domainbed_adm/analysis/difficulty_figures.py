"""The poster's figure: each measure's distribution over training, Adam against SAM, and how well it tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np

from domainbed_adm.analysis.difficulty import TracedMethod
from domainbed_adm.analysis.separability import COMPARED
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What stands below the distributions: attribute of ``Separability``, title.
STATISTICS = {
    "variation": "coefficient of variation",
    "self_correlation": "rank correlation with one checkpoint earlier",
    "correctness_correlation": "rank correlation with final correctness",
}
_UNITS = {"Loss": "Loss (nats)", "GDM": "GDM (nats / input unit)", "ADM": "ADM (logarithmic above 1)"}
_BANDS = ((5, 95, 0.2), (25, 75, 0.35))
_LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_PANEL = (3.6, 2.4)
_WITH_LEGEND = (3.6, 2.8)


def draw_difficulty(methods: Sequence[TracedMethod]) -> Figure:
    """One figure: a column for each method with the three distributions, below it the statistics of all methods."""
    from matplotlib.figure import Figure

    panels = [*STATISTICS, "linear"]
    columns = max(len(methods), 2)
    lower = -(-len(panels) // columns)
    with figures.style():
        heights = (_PANEL[1] * len(COMPARED), _WITH_LEGEND[1] * lower)
        figure = Figure(figsize=(_PANEL[0] * columns, sum(heights)))
        upper, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
        grid = upper.subplots(len(COMPARED), len(methods), sharex="col", sharey="row", squeeze=False)
        lowest = below.subplots(lower, columns, squeeze=False).flat
        for i, measure in enumerate(COMPARED):
            for j, method in enumerate(methods):
                distribution(grid[i][j], method, measure)
                grid[i][j].set(title=title(method) if i == 0 else "", ylabel=_UNITS[measure] if j == 0 else "")
                grid[i][j].set(xlabel="step" if i == len(COMPARED) - 1 else "")
            _limit(grid[i][0], methods, measure)
        for axes, what in zip_longest(lowest, panels):
            if what:
                statistic(axes, methods, what)
            else:
                axes.set_axis_off()
    return figure


def difficulty_panels(methods: Sequence[TracedMethod]) -> list[Figure]:
    """The same as figures of one panel each, for pages: the distributions measure by measure, then the statistics."""
    from matplotlib.figure import Figure

    found = []
    with figures.style():
        for measure in COMPARED:
            for method in methods:
                figure = Figure(figsize=_PANEL)
                axes = figure.subplots()
                distribution(axes, method, measure)
                axes.set(title=title(method), ylabel=_UNITS[measure], xlabel="step")
                _limit(axes, methods, measure)
                found.append(figure)
        for what in (*STATISTICS, "linear"):
            figure = Figure(figsize=_WITH_LEGEND)
            statistic(figure.subplots(), methods, what)
            found.append(figure)
    return found


def distribution(axes: Axes, method: TracedMethod, measure: str) -> None:
    """Median, middle half and middle 90 % of the scores over steps."""
    colour = figures.COLOURS[COMPARED.index(measure)]
    for low, high, alpha in _BANDS:
        axes.fill_between(
            method.step, *_percentiles(method, measure, low, high), color=colour, alpha=alpha, linewidth=0
        )
    axes.plot(method.step, *_percentiles(method, measure, 50), color=colour)


def statistic(axes: Axes, methods: Sequence[TracedMethod], what: str) -> None:
    """One statistic of every measure and method over steps: colour tells the measure, the line the method."""
    for j, method in enumerate(methods):
        line = _LINES[j % len(_LINES)]
        if what == "linear":
            axes.plot(method.step, method.linear.share, line, color=figures.COLOURS[3])
            continue
        for i, measure in enumerate(COMPARED):
            axes.plot(method.step, getattr(method.separability(measure), what), line, color=figures.COLOURS[i])
    if what == "linear":
        axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title=STATISTICS.get(what, "pairs that ADM's linear estimator orders alike"), xlabel="step")
    _legend(axes, methods, what)


def _legend(axes: Axes, methods: Sequence[TracedMethod], what: str) -> None:
    """Below the panel, where it hides no line: the measures, and the methods where there are several."""
    from matplotlib.lines import Line2D

    measures = () if what == "linear" else COMPARED
    handles = [Line2D([], [], color=figures.COLOURS[i], label=measure) for i, measure in enumerate(measures)]
    if len(methods) > 1:
        styles = [_LINES[j % len(_LINES)] for j in range(len(methods))]
        handles += [
            Line2D([], [], color="gray", linestyle=line, label=title(method))
            for line, method in zip(styles, methods, strict=True)
        ]
    if handles:
        columns = 3 if len(methods) == 1 or len(methods) > 3 else 2  # with measures in the first
        axes.legend(
            handles=handles,
            fontsize="x-small",
            ncols=columns if measures else 2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.25),
        )


def title(method: TracedMethod) -> str:
    """The method as the poster calls it: ERM is Adam alone."""
    name = "ERM (Adam)" if method.algorithm == "ERM" else method.algorithm
    return name if len(method.traces) == 1 else f"{name}, {len(method.traces)} runs"


def _limit(axes: Axes, methods: Sequence[TracedMethod], measure: str) -> None:
    """The same axis for every method, up to what holds the middle 90 % of each at every step."""
    if measure == "ADM":  # its scores span orders of magnitude
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter("{x:g}")  # the scale's own writes formulas, which the style draws as they are
    ends = np.concatenate([_percentiles(method, measure, 95)[0] for method in methods])
    axes.set_ylim(0, 1.05 * max(ends[ends > 0], default=1.0))


def _percentiles(method: TracedMethod, measure: str, *percents: float) -> np.ndarray:
    """Of shape (percents, T); NaN at a checkpoint with a score that is no finite number."""
    scores = method.scores(measure)
    return np.percentile(np.where(np.isfinite(scores), scores, np.nan), percents, axis=1)
