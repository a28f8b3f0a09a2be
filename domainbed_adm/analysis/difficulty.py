"""Traces of several runs, by method: what ``analyze difficulty`` prints and draws."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm import records
from domainbed_adm.analysis.separability import COMPARED, LinearEstimator, Separability, linear_estimator, separability
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import DIFFICULTY, DONE, RESULTS
from domainbed_adm.system import figures
from domainbed_adm.system.console import warn
from domainbed_adm.system.tables import show
from domainbed_adm.training.difficulty_trace import Trace, load_trace

#: What is printed, by its name in a row.
_COLUMNS = {
    "algorithm": "algorithm",
    "measure": "difficulty",
    "step": "step",
    "runs": "runs",
    "median": "median",
    "variation": "variation",
    "self_correlation": "corr. previous",
    "correctness_correlation": "corr. correct",
    "linear_share": "pairs linear keeps",
    "linear_rank_correlation": "corr. linear",
}


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

    def scores(self, measure: str) -> np.ndarray:
        """The scores of all runs' images side by side, float64 of shape (T, runs x N)."""
        return np.concatenate([trace.scores[measure] for trace in self.traces], axis=1).astype(np.float64)

    def separability(self, measure: str) -> Separability:
        """Each figure's mean over runs."""
        found = self._by_run[measure]
        return Separability(
            _mean([one.variation for one in found]),
            _mean([one.self_correlation for one in found]),
            _mean([one.correctness_correlation for one in found]),
        )

    def correctness_runs(self, measure: str) -> np.ndarray:
        """How many runs have a correlation with correctness, shape (T,); with all images right in the end none has."""
        return np.isfinite([one.correctness_correlation for one in self._by_run[measure]]).sum(axis=0)

    @cached_property
    def _by_run(self) -> dict[str, list[Separability]]:
        return {name: [separability(one.scores[name], one.correct) for one in self.traces] for name in COMPARED}

    @cached_property
    def linear(self) -> LinearEstimator:
        """Each figure's mean over runs."""
        found = [linear_estimator(trace) for trace in self.traces]
        return LinearEstimator(_mean([one.share for one in found]), _mean([one.rank_correlation for one in found]))


def _mean(series: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over runs of what is a number; NaN where none is."""
    stacked = np.stack(series)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(stacked.shape[1], np.nan), where=known.any(axis=0))


def load_traces(runs: Iterable[Run]) -> list[TracedMethod]:
    """The traces of these runs by dataset and method; a run without one is passed over.

    One that is damaged, or lacks steps that the run has recorded, is left out with a warning; while a run goes on its
    last record may be without scores yet. Of a method's runs those count that were scored at its longest run's steps.
    """
    found: dict[tuple[str, str], list[Trace]] = {}
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
            found.setdefault((run.args["dataset"], run.args["algorithm"]), []).append(trace)
    return [_method(algorithm, dataset, traces) for (dataset, algorithm), traces in found.items()]


def _method(algorithm: str, dataset: str, traces: list[Trace]) -> TracedMethod:
    longest = max(traces, key=lambda trace: len(trace.step)).step
    same = [trace for trace in traces if np.array_equal(trace.step, longest)]
    return TracedMethod(algorithm, dataset, same, len(traces) - len(same))


def analyze_difficulty(runs: Sequence[Run], output: Path, as_json: bool) -> None:
    """Draw the traces of these runs into ``output``, and print their figures.

    Raises:
        UserError: no run has a trace, or the figure cannot be drawn or written.
    """
    figures.check_output(output)
    methods = load_traces(runs)
    if not methods:
        where = str(runs[0].folder) if len(runs) == 1 else f"any of the {len(runs)} runs"
        raise UserError(
            f"no {DIFFICULTY} in {where}: train (or sweep launch) with --trace_difficulty, and --restart where the "
            "runs are finished"
        )
    if len({method.dataset for method in methods}) > 1:
        raise UserError(f"the runs are on {', '.join(sorted({m.dataset for m in methods}))}: choose one by --dataset")
    from domainbed_adm.analysis.difficulty_figures import draw_difficulty

    figures.save(draw_difficulty(methods), output)
    found = rows(methods)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    ends = [row for row in found for method in methods if _is_end(row, method)]
    show(tuple(_COLUMNS.values()), [[_cell(row, name) for name in _COLUMNS] for row in ends])
    for method in methods:
        if method.left_out:
            print(f"{method.algorithm}: {method.left_out} runs scored at other steps are left out")
    print(f"figure: {output}")


def _is_end(row: dict[str, Any], method: TracedMethod) -> bool:
    ends = (int(method.step[0]), int(method.step[-1]))
    return row["algorithm"] == method.algorithm and row["step"] in ends


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    cell = "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    if name == "correctness_correlation" and 0 < row["correctness_runs"] < row["runs"]:
        cell += f" ({row['correctness_runs']} runs)"
    return cell


def rows(methods: Iterable[TracedMethod]) -> list[dict[str, Any]]:
    """One row for each method, measure and checkpoint, numbers None where they are not known."""
    found = []
    for method in methods:
        linear = method.linear
        for measure in COMPARED:
            figures, scores = method.separability(measure), method.scores(measure)
            counted = method.correctness_runs(measure)
            for t, step in enumerate(method.step.tolist()):
                row: dict[str, Any] = {"dataset": method.dataset, "algorithm": method.algorithm, "measure": measure}
                row |= {"step": step, "runs": len(method.traces), "samples": scores.shape[1]}
                row |= {"median": _number(np.median(scores[t])), "variation": _number(figures.variation[t])}
                row["self_correlation"] = _number(figures.self_correlation[t])
                row["correctness_correlation"] = _number(figures.correctness_correlation[t])
                row["correctness_runs"] = int(counted[t])
                known = measure == "ADM"
                row["linear_share"] = _number(linear.share[t]) if known else None
                row["linear_rank_correlation"] = _number(linear.rank_correlation[t]) if known else None
                found.append(row)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
