"""Traces of several runs, by method: what ``analyze difficulty`` and ``report`` show."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from domainbed_adm import records
from domainbed_adm.analysis.separability import agreement, separability
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import DIFFICULTY, DONE, RESULTS
from domainbed_adm.system.console import warn
from domainbed_adm.training.difficulty_trace import Trace, load_trace

#: Figures of a measure at a checkpoint, in the order of ``separability`` and of ``agreement``.
_FIGURES = ("variation", "self_correlation", "correctness_correlation")
_OF_ESTIMATE = ("linear_share", "linear_rank_correlation")


@dataclass(frozen=True)
class TracedMethod:
    """The traces of one method on one dataset that were scored at the same steps.

    Attributes:
        algorithm: its name.
        dataset: name of the dataset.
        traces: one for each run.
        left_out: how many more runs were scored at other steps.
    """

    algorithm: str
    dataset: str
    traces: list[Trace]
    left_out: int = 0

    @property
    def step(self) -> np.ndarray:
        """The T steps scored after."""
        return self.traces[0].step

    @cached_property
    def estimates(self) -> dict[str, str | None]:
        """The difficulties that every run has scores by, and each one's estimate, such as ``ADM_linear``."""
        names = [name for name in self.traces[0].scores if all(name in trace.scores for trace in self.traces)]
        exact = [name for name in names if "_" not in name]
        return {name: next((one for one in names if one.startswith(f"{name}_")), None) for name in exact}

    def scores(self, measure: str) -> np.ndarray:
        """The scores of all runs' images side by side, float64 of shape (T, runs x N)."""
        return np.concatenate([trace.scores[measure] for trace in self.traces], axis=1).astype(np.float64)

    @cached_property
    def figures(self) -> dict[str, dict[str, np.ndarray]]:
        """By difficulty and by name, means over runs at each checkpoint, each of shape (T,).

        ``correctness_runs`` is how many runs have a correlation with correctness; with all images right in the end none
        has. ``linear_share`` and ``linear_rank_correlation`` are there where the difficulty has an estimate.
        """
        found = {}
        for measure, estimate in self.estimates.items():
            by_run = np.array([separability(trace.scores[measure], trace.correct) for trace in self.traces])
            found[measure] = dict(zip(_FIGURES, _mean(by_run), strict=True))
            found[measure]["correctness_runs"] = np.isfinite(by_run[:, -1]).sum(axis=0)
            if estimate:
                agreed = np.array([agreement(one.scores[measure], one.scores[estimate]) for one in self.traces])
                found[measure] |= dict(zip(_OF_ESTIMATE, _mean(agreed), strict=True))
        return found


def _mean(by_run: np.ndarray) -> np.ndarray:
    """Mean over runs, the first axis, of what is a number; NaN where none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: np.ndarray = np.nanmean(np.where(np.isfinite(by_run), by_run, np.nan), axis=0)
    return mean


def load_traces(runs: Iterable[Run]) -> list[TracedMethod]:
    """The traces of these runs by dataset and method; a run without one is passed over.

    One that is damaged, or lacks steps that the run has recorded, is left out with a warning; while a run goes on its
    last record may be without scores yet. Of a method's runs those count that were scored at its longest run's steps.
    """
    traces: dict[tuple[str, str], list[Trace]] = {}
    for run in runs:
        path = run.folder / DIFFICULTY
        if not path.is_file():
            continue
        lag = 0 if (run.folder / DONE).exists() else 1  # read before the trace, and the records after it
        try:
            trace = load_trace(path)
            recorded = sorted({step for one in records.read_runs(run.folder / RESULTS) for step in one.steps.tolist()})
        except UserError as error:
            warn(f"{error}: left out")
            continue
        if trace.step.tolist() != recorded[: len(trace.step)] or len(recorded) > len(trace.step) + lag:
            warn(f"{path} has other steps than {RESULTS}, trained partly without a trace: left out")
        elif len(trace.step):
            traces.setdefault((run.args["dataset"], run.args["algorithm"]), []).append(trace)
    return [_method(algorithm, dataset, found) for (dataset, algorithm), found in traces.items()]


def _method(algorithm: str, dataset: str, traces: list[Trace]) -> TracedMethod:
    longest = max(traces, key=lambda trace: len(trace.step)).step
    same = [trace for trace in traces if np.array_equal(trace.step, longest)]
    return TracedMethod(algorithm, dataset, same, len(traces) - len(same))


def rows(methods: Iterable[TracedMethod]) -> list[dict[str, Any]]:
    """One row for each method, difficulty and checkpoint, numbers None where they are not known."""
    found = []
    for method in methods:
        for measure, figures in method.figures.items():
            scores = method.scores(measure)
            for t, step in enumerate(method.step.tolist()):
                row: dict[str, Any] = {"dataset": method.dataset, "algorithm": method.algorithm, "measure": measure}
                row |= {"step": step, "runs": len(method.traces), "samples": scores.shape[1]}
                row["median"] = _number(np.median(scores[t]))
                row |= {name: _number(figures[name][t]) for name in _FIGURES}
                row["correctness_runs"] = int(figures["correctness_runs"][t])
                row |= {name: _number(figures[name][t]) if name in figures else None for name in _OF_ESTIMATE}
                found.append(row)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def backwards(last: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on difficulties that rank backwards: scores are higher where the image ends right.

    A correlation counts from 2 / sqrt(N) on, N images of a run: chance alone stays below it in 19 cases of 20.

    Args:
        last: the rows of the last checkpoints.
    """
    methods: dict[str, list[str]] = {}
    for row in last:
        if (row["correctness_correlation"] or 0) > 2 / np.sqrt(row["samples"] / row["runs"]):
            methods.setdefault(row["measure"], []).append(row["algorithm"])
    return [
        f"{measure} ranks backwards here ({', '.join(names)}): images called hard are the ones the model gets right."
        for measure, names in methods.items()
    ]
