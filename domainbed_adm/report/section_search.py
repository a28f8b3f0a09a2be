"""The section on a search of hyperparameters: its course, what mattered, and where the good trials lie."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.searches import described
from domainbed_adm.report.section_analyses import AnalysisBlock, charts
from domainbed_adm.report.tables import Row, Table, number, text
from domainbed_adm.sweeping.search import Search, read_search
from domainbed_adm.sweeping.search_space import Range, Values
from domainbed_adm.sweeping.study import COMPLETE, FAIL, PRUNED, RUNNING, Trial, importance, read_trials
from domainbed_adm.system import figures
from domainbed_adm.system.console import printable, warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of a figure, and of each axis of the parallel coordinates.
_SIZE, _AXIS = (3.6, 2.4), 1.0
#: Trials in the table.
_LISTED = 10
_WORDS = {COMPLETE: "complete", PRUNED: "stopped early", FAIL: "failed", RUNNING: "unfinished"}
_AXIS_LABEL = "validation accuracy in %"


def search(root: Path) -> AnalysisBlock | None:
    """The search in ``root``; None where there is none, or, after a warning, where it cannot be read."""
    try:
        there = read_search(root)
        trials = read_trials(root) if there else []
    except UserError as error:
        warn(f"the search is left out: {error}")
        return None
    if there is None:
        return None
    known = [trial for trial in trials if trial.value is not None]
    counts = Counter(_WORDS.get(trial.state, "unfinished") for trial in trials)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    note = f"{described(there, len(trials))}. Trials: {told or 'none yet'}."
    if known:
        note += " In parallel coordinates a line is a trial, stronger the better it is; the best is red."
    shares = importance(there, trials)
    if shares:
        note += (
            " Importance is the share of the objective's variance that an hparam explains over what was searched "
            "(fANOVA, Hutter et al., ICML 2014); of few trials it is rough."
        )
    panels = partial(_panels, there, known, shares) if known else list
    return AnalysisBlock(f"{there.algorithm} on {there.dataset}", note, charts("search", panels), _table(there, known))


def _panels(there: Search, trials: list[Trial], shares: dict[str, float]) -> list[Figure]:
    drawn = [figures.grid([partial(_history, trials)], 1, _SIZE, legend=2)]
    if shares:
        height = 0.9 + 0.28 * len(shares)
        drawn.append(figures.grid([partial(_importance, shares)], 1, (_SIZE[0], height)))
    width = max(_SIZE[0], _AXIS * (len(there.space) + 1))
    drawn.append(figures.grid([partial(_parallel, there, trials)], 1, (width, 2.8)))
    return drawn


def _history(trials: list[Trial], axes: Axes) -> None:
    """The objective of each trial, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    best, numbers, values = -math.inf, [], []
    for trial in trials:
        if trial.state == COMPLETE and trial.value is not None and trial.value > best:
            best = trial.value
        if best > -math.inf:
            numbers.append(trial.number)
            values.append(100 * best)
    for state, marker, colour in ((COMPLETE, "o", figures.COLOURS[0]), (PRUNED, "x", figures.COLOURS[-1])):
        own = [trial for trial in trials if trial.state == state]
        if own:
            shown = [100 * (trial.value or 0) for trial in own]
            places = [trial.number for trial in own]
            axes.plot(places, shown, marker, color=colour, markersize=4, label=_WORDS[state])
    axes.plot(numbers, values, drawstyle="steps-post", color=figures.COLOURS[3], label="best so far")
    axes.set_title("Trials", loc="left")
    axes.set_xlabel("trial")
    axes.set_ylabel(_AXIS_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _importance(shares: dict[str, float], axes: Axes) -> None:
    names = list(shares)[::-1]
    axes.barh([printable(name) for name in names], [100 * shares[name] for name in names], color=figures.COLOURS[0])
    axes.set_title("Importance", loc="left")
    axes.set_xlabel("share of variance in %")
    axes.set_xlim(0, 100)


def _parallel(there: Search, trials: list[Trial], axes: Axes) -> None:
    """A line for each trial through its values, on an axis each, to its objective; the stronger the better."""
    space = there.dimensions
    accuracies = [100 * (trial.value or 0) for trial in trials]
    low, high = min(accuracies), max(accuracies)
    high = high if high > low else low + 1
    for trial, accuracy in sorted(zip(trials, accuracies, strict=True), key=lambda pair: pair[1]):
        share = (accuracy - low) / (high - low)
        heights = [_height(one, trial.values.get(name)) for name, one in space.items()]
        colour = figures.COLOURS[3 if share == 1 else 0]
        axes.plot([*heights, share], color=colour, linewidth=0.6 + 1.2 * share**2, alpha=0.15 + 0.85 * share**2)
    ends = [_ends(one) for one in space.values()] + [{0.0: f"{low:.1f}", 1.0: f"{high:.1f}"}]
    for place, labels in enumerate(ends):
        axes.axvline(place, color="gray", linewidth=0.8)
        for height, label in labels.items():
            axes.annotate(
                printable(label), (place, height), (3, 0), textcoords="offset points", fontsize=7, va="center"
            )
    axes.set_xticks(range(len(ends)), [*map(printable, space), "validation\naccuracy in %"])
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlim(-0.1, len(ends) - 0.6)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("Parallel coordinates", loc="left")


def _height(one: Range | Values, value: Any) -> float:
    """Where a value lies on its axis, 0 to 1."""
    if isinstance(one, Values):
        return one.values.index(value) / max(1, len(one.values) - 1)
    low, high, at = (math.log(x) if one.log else x for x in (one.low, one.high, value))
    return (at - low) / (high - low)


def _ends(one: Range | Values) -> dict[float, str]:
    """What is written on an axis, by its place."""
    if isinstance(one, Values):
        return {_height(one, value): _short(value) for value in one.values}
    return {0.0: _short(one.low), 1.0: _short(one.high)}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(there: Search, trials: list[Trial]) -> Table | None:
    best = sorted((one for one in trials if one.state == COMPLETE), key=lambda one: (-(one.value or 0), one.number))
    if not best:
        return None
    rows = [
        Row(
            [str(trial.number)],
            [number(100 * (trial.value or 0), ".2f"), *(_cell(trial.values[n]) for n in there.space)],
        )
        for trial in best[:_LISTED]
    ]
    left = len(best) - len(rows)
    note = f"{left} more: domainbed-adm list_top_hparams --n_top {len(best)}." if left else ""
    note = f"Trial t has hparams_seed t + 1. {note}"
    return Table("Best trials", ["Trial"], [_AXIS_LABEL.capitalize(), *there.space], rows, note, highest_first=True)


def _cell(value: Any) -> Any:
    return number(value, ".3g") if isinstance(value, (int, float)) and not isinstance(value, bool) else text(str(value))
