"""Traces of several runs, by method, and how well each difficulty in them tells samples apart.

With xi_t in R^N the scores of N images at checkpoint t, t = 0 ... T - 1:

============================  ==================================================================================
coefficient of variation      std(xi_t) / mean(xi_t), std with divisor N; 0: all images score alike
correlation with the last     Spearman's of xi_t and xi_{t-1}: whether the order lasts; NaN at t = 0
correlation with correctness  Spearman's of xi_t and c in {0, 1}^N, whether the image is right at t = T - 1: below
                              0 where images that end wrong were scored harder
share of an estimate          share of the pairs (i, j) with xi_i < xi_j that the estimate has in that order
rank correlation of it        Spearman's of xi_t and its estimate
============================  ==================================================================================

Where scores are all equal a correlation is NaN; where one is no finite number, all figures of its checkpoint are.
Spearman's is Pearson's of mean ranks (Spearman, 1904).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import rankdata

from domainbed_adm import records
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import DIFFICULTY, DONE, RESULTS
from domainbed_adm.system.console import warn
from domainbed_adm.training.difficulty_trace import Trace, load_trace


@dataclass(frozen=True)
class TracedMethod:
    """The traces of one method on one dataset that were scored at the same steps."""

    algorithm: str
    dataset: str
    traces: list[Trace]  # one for each run
    left_out: int = 0  # how many more runs were scored at other steps

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
            by_run = [
                separability(trace.scores[measure], trace.correct)
                | (agreement(trace.scores[measure], trace.scores[estimate]) if estimate else {})
                for trace in self.traces
            ]
            found[measure] = {name: _mean([one[name] for one in by_run]) for name in by_run[0]}
            correlations = [one["correctness_correlation"] for one in by_run]
            found[measure]["correctness_runs"] = np.isfinite(correlations).sum(axis=0)
        return found


def _mean(by_run: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over runs of what is a number; NaN where none is."""
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
            estimate = method.estimates[measure]
            scores = method.scores(measure)
            for t, step in enumerate(method.step.tolist()):
                row: dict[str, Any] = {"dataset": method.dataset, "algorithm": method.algorithm, "measure": measure}
                row |= {"step": step, "runs": len(method.traces), "samples": scores.shape[1]}
                row["median"] = _number(np.median(scores[t]))
                for name in ("variation", "self_correlation", "correctness_correlation"):
                    row[name] = _number(figures[name][t])
                row["correctness_runs"] = int(figures["correctness_runs"][t])
                for name in ("linear_share", "linear_rank_correlation"):
                    row[name] = _number(figures[name][t]) if estimate else None
                found.append(row)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def backwards(last: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on difficulties that rank backwards in the last rows: scores are higher where the image ends right.

    A correlation counts from 2 / sqrt(N) on, N images of a run: chance alone stays below it in 19 cases of 20.
    """
    methods: dict[str, list[str]] = {}
    for row in last:
        if (row["correctness_correlation"] or 0) > 2 / np.sqrt(row["samples"] / row["runs"]):
            methods.setdefault(row["measure"], []).append(row["algorithm"])
    return [
        f"{measure} ranks backwards here ({', '.join(names)}): images called hard are the ones the model gets right."
        for measure, names in methods.items()
    ]


def separability(scores: np.ndarray, correct: np.ndarray) -> dict[str, np.ndarray]:
    """Variation and both correlations of one measure at each checkpoint, each of shape (T,).

    ``scores`` are >= 0, of shape (T, N); ``correct`` is bool of that shape, and its last row counts.
    """
    scores = _finite(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = scores.std(axis=1) / scores.mean(axis=1)
    previous = np.append(np.full((1, scores.shape[1]), np.nan), scores[:-1], axis=0)[: len(scores)]
    final = np.broadcast_to(correct[-1:], scores.shape)
    return {
        "variation": variation,
        "self_correlation": rank_correlations(scores, previous),
        "correctness_correlation": rank_correlations(scores, final),
    }


def agreement(exact: np.ndarray, estimate: np.ndarray) -> dict[str, np.ndarray]:
    """How much of the order of scores (T, N) their estimate keeps at each checkpoint, each of shape (T,)."""
    exact, estimate = _finite(exact), _finite(estimate)
    share = np.array([same_order(*pair) for pair in zip(exact, estimate, strict=True)])
    return {"linear_share": share, "linear_rank_correlation": rank_correlations(exact, estimate)}


def _finite(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(scores), scores.astype(np.float64), np.nan)


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the rows of two arrays of shape (T, N), of shape (T,); NaN for constant or NaN rows."""
    ranks = np.array([rankdata(values, axis=1, nan_policy="propagate") for values in (a, b)])
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations: np.ndarray = (centred[0] * centred[1]).sum(axis=1) / np.linalg.norm(centred, axis=2).prod(axis=0)
    return correlations


def same_order(exact: np.ndarray, estimate: np.ndarray) -> float:
    """Share of the pairs that ``exact`` orders strictly which ``estimate`` orders alike; an equal pair is half.

    1/2 is chance, NaN where all of ``exact`` are equal. Both are of shape (N,).
    """
    ordered = kept = 0.0
    for i in range(len(exact) - 1):
        above = np.sign(exact[i + 1 :] - exact[i])
        agreement = above * np.sign(estimate[i + 1 :] - estimate[i])
        ordered += np.count_nonzero(above)
        kept += np.count_nonzero(agreement > 0) + np.count_nonzero((agreement == 0) & (above != 0)) / 2
    return kept / ordered if ordered else float("nan")
