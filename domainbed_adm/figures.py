"""Figures of runs, as functions that draw into matplotlib's axes and return them.

Each takes the runs of :func:`~domainbed_adm.load_runs`, or the folder they lie in, and ``axes`` to draw into; without,
it makes a figure of its own by ``pyplot``, which a notebook shows. The numbers are those of ``collect_results``,
``report`` and ``analyze difficulty``.

>>> from domainbed_adm import figures
>>> axes = figures.learning_curves("results/smoke", "test")  # doctest: +SKIP
>>> axes.figure.savefig("curves.pdf")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from domainbed_adm.analysis.difficulty import TracedMethod, load_traces
from domainbed_adm.analysis.difficulty_drawings import STATISTICS, distribution, statistic
from domainbed_adm.errors import UserError, lookup
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import compared
from domainbed_adm.model_selection import EVERY_SELECTION, SelectionMethod
from domainbed_adm.recorded_run import Run, Runs
from domainbed_adm.records import load_runs
from domainbed_adm.report.section_learning import MEASURES, curve
from domainbed_adm.system.figures import COLOURS, check_available, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RunsOrFolder: TypeAlias = "Runs | Sequence[Run] | str | Path"

_MEASURES = dict(zip(("test", "source", "loss"), MEASURES, strict=True))


def learning_curves(runs: RunsOrFolder, measure: str = "test", axes: Axes | None = None) -> Axes:
    """A line for each method over training steps, mean over its runs (trials and test environments).

    Args:
        runs: of one dataset; those that hold out a pair of environments are left out.
        measure: "test" (accuracy on the in-split of the environment held out, %), "source" (mean accuracy on the
            sources' out-splits, %) or "loss" (of training).
        axes: to draw into.

    Raises:
        UserError: there is no such measure or no such run, or there are several datasets; so are the others.
    """
    shown, board = lookup(_MEASURES, measure, "measure"), _board(runs)
    _one_dataset(board)
    with _drawn(axes) as axes:
        for i, name in enumerate(board.algorithms):
            by_step: dict[float, list[float]] = {}
            for run in board.runs:
                if run.algorithm == name and run.alone:
                    for step, value in curve([run], shown, run.test_envs[0]):
                        by_step.setdefault(step, []).append(value)
            steps = sorted(by_step)
            means = [float(np.mean(by_step[step])) for step in steps]
            axes.plot(steps, means, color=COLOURS[i % len(COLOURS)], label=name, marker="" if steps[1:] else "o")
        axes.set(xlabel="training step", ylabel=shown.name)
        axes.legend()
        return axes


def accuracy(runs: RunsOrFolder, selection: str = "training-domain", axes: Axes | None = None) -> Axes:
    """A dot for each method: test accuracy in %, mean over test environments and trials, with its standard error.

    Args:
        runs: of one dataset.
        selection: the model selection method, as ``collect_results --selection`` names it.
        axes: to draw into.

    Raises:
        UserError: no run has what the selection method needs.
    """
    method = lookup(EVERY_SELECTION, selection, "selection method")
    board = _board(runs, method)
    dataset = _one_dataset(board)
    entries = {name: board.over_environments(method, dataset, name) for name in board.algorithms}
    known = {name: (entry.mean, entry.sem) for name, entry in entries.items() if entry.mean is not None}
    if not known:
        raise UserError(f"nothing to draw: {method.name} needs {method.needs}")
    with _drawn(axes, rows=len(known)) as axes:
        rows = list(range(0, -len(known), -1))
        errors = [error or 0.0 for _, error in known.values()]
        axes.errorbar([mean for mean, _ in known.values()], rows, xerr=errors, fmt="o", color=COLOURS[0], capsize=3)
        axes.set_yticks(rows, labels=list(known))
        axes.set(xlabel=f"test accuracy on {dataset}, %", title=f"selected by {method.key}")
        return axes


def paired_differences(
    runs: RunsOrFolder,
    baseline: str,
    methods: Sequence[str] | None = None,
    selection: str = "training-domain",
    axes: Axes | None = None,
) -> Axes:
    """A forest plot: each method less the baseline in percentage points, paired, with Student's 95 % interval.

    The differences are those of ``collect_results --compare``: over trials first, then over test environments.

    Args:
        runs: of one dataset or several; each has a row for each method.
        baseline: name of the method that the others are compared with.
        methods: names; None for all others.
        selection: the model selection method.
        axes: to draw into.
    """
    method = lookup(EVERY_SELECTION, selection, "selection method")
    board = _board(runs, method)
    others = list(methods) if methods is not None else [name for name in board.algorithms if name != baseline]
    found = compared(board, [method], [baseline, *others])[method]
    rows = [(row, row.difference.mean) for row in found if row.difference.mean is not None]
    with _drawn(axes, rows=len(rows)) as axes:
        labels = []
        for i, (row, mean) in enumerate(rows):
            ends = row.difference.interval
            known = ends is not None and (ends[0] > 0 or ends[1] < 0)
            colour = COLOURS[0] if not known else COLOURS[2] if ends and ends[0] > 0 else COLOURS[3]
            if ends:
                axes.plot(ends, (-i, -i), color=colour)
            axes.plot(mean, -i, "o", color=colour)
            labels.append(row.method if len(board.environments) == 1 else f"{row.method}, {row.dataset}")
        axes.axvline(0, color="gray", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(0, -len(rows), -1), labels=labels)
        axes.set(xlabel=f"test accuracy less that of {baseline}, percentage points")
        return axes


def difficulty(
    runs: RunsOrFolder, measure: str = "ADM", algorithm: str | None = None, axes: Axes | None = None
) -> Axes:
    """How a difficulty of the traced training images spreads over training: median, middle half, middle 90 %.

    Args:
        runs: trained with ``trace_difficulty``.
        measure: name of the difficulty.
        algorithm: whose runs; needed where several methods were traced.
        axes: to draw into.

    Raises:
        UserError: no run has a trace, or several methods have and none is named.
    """
    traced = _traced(runs)
    if algorithm is None and len(traced) > 1:
        raise UserError(f"several methods were traced: name one as algorithm: {', '.join(traced)}")
    method = lookup(traced, algorithm or next(iter(traced)), "traced algorithm")
    lookup(method.estimates, measure, "difficulty")
    with _drawn(axes) as axes:
        distribution(axes, method, [method], measure)
        return axes


def separability(runs: RunsOrFolder, statistic_name: str = "variation", axes: Axes | None = None) -> Axes:
    """A statistic of every traced difficulty over training: colour tells the difficulty, the line the method.

    Args:
        runs: trained with ``trace_difficulty``.
        statistic_name: "variation" (coefficient of variation), "self_correlation" (rank correlation with one
            checkpoint earlier), "correctness_correlation" (with the final correctness) or "linear_share".
        axes: to draw into.
    """
    lookup(STATISTICS, statistic_name, "statistic")
    with _drawn(axes) as axes:
        statistic(axes, list(_traced(runs).values()), statistic_name)
        return axes


def _runs(runs: RunsOrFolder) -> Runs:
    return load_runs(runs) if isinstance(runs, str | Path) else Runs(runs)


def _board(runs: RunsOrFolder, *selections: SelectionMethod) -> Board:
    own = _runs(runs)
    if not own:
        raise UserError("no runs were given")
    return Board(own, selections)


def _one_dataset(board: Board) -> str:
    if len(board.environments) > 1:
        raise UserError(f"give the runs of one dataset: there are runs on {', '.join(board.environments)}")
    return next(iter(board.environments))


def _traced(runs: RunsOrFolder) -> dict[str, TracedMethod]:
    methods = load_traces(_runs(runs))
    if not methods:
        raise UserError("none of these runs has a trace: train with trace_difficulty")
    if len({method.dataset for method in methods}) > 1:
        raise UserError("give the runs of one dataset")
    return {method.algorithm: method for method in methods}


@contextmanager
def _drawn(axes: Axes | None, rows: int | None = None) -> Iterator[Axes]:
    """Within the block, the axes to draw into, in the project's style; ``rows`` is how many names they show."""
    check_available()
    with style():
        if axes is None:
            from matplotlib import pyplot

            _, axes = pyplot.subplots(figsize=(5.5, 3.4 if rows is None else 0.9 + 0.34 * max(2, rows)))
        yield axes
