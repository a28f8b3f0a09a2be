"""The paper's Hessian table: the largest eigenvalue of each curriculum, with and without flatness, on each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any, NamedTuple

from domainbed_adm.analysis.result_files import Flatness, load_flatness, result_path
from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.evaluations import chosen_runs
from domainbed_adm.leaderboard.layouts import Sheet
from domainbed_adm.leaderboard.paper import paper_labels
from domainbed_adm.leaderboard.rows import figure_row
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import HESSIAN, MODEL
from domainbed_adm.system.console import warn

QUANTITY = "largest_hessian_eigenvalue"


class Eigenvalues(NamedTuple):
    """Of the Hessian of the loss on all source domains together, the largest."""

    results: dict[Run, Flatness]
    trials: dict[tuple[str, str], dict[int, float]]  # of (dataset, algorithm) each trial's, mean over test environments

    def entry(self, dataset: str, algorithm: str) -> Entry:
        """Mean over trials and its standard error."""
        return Entry.over(list(self.trials.get((dataset, algorithm), {}).values()))


def eigenvalues(board: Board) -> Eigenvalues:
    """What ``analyze hessian`` left of the runs' last models; results of another run get a warning."""
    results: dict[Run, Flatness] = {}
    for run in board.runs:
        if run.alone and (path := result_path(run.folder, MODEL, *HESSIAN)).is_file():
            identity = [run.args[name] for name in IDENTITY]
            found = [one for one in load_flatness(run.folder) if [getattr(one, n) for n in IDENTITY] == identity]
            results |= {run: found[0]} if found else {}
            if not found:
                warn(f"{path} left out: it is damaged, or another run's")
    trials = {}
    for dataset in board.environments:
        measured = [run for run in results if run.dataset == dataset]
        for algorithm, by_trial in (chosen_runs(board, dataset, measured) if measured else {}).items():
            known = {
                trial: mean(results[run].of("pooled")[0].largest_eigenvalue for run in runs)
                for trial, runs in by_trial.items()
                if all(run in results for run in runs)
            }
            if known := {trial: value for trial, value in known.items() if value == value}:
                trials[dataset, algorithm] = known
    return Eigenvalues(results, trials)


def hessian_sheet(board: Board, found: Eigenvalues) -> Sheet:
    """A row for each curriculum and difficulty, a column for each dataset and optimizer."""
    cells: dict[tuple[str, str], dict[str, Entry]] = {}
    columns: list[str] = []
    for dataset in board.environments:
        own = [name for name in board.algorithms if (dataset, name) in found.trials]
        for name in own:
            _, optimizer, curriculum, difficulty = paper_labels(board, name, [dataset])
            length = name.partition(" ")[2]
            row = " ".join(filter(None, (name if optimizer == "-" else _row(curriculum), length))), difficulty
            columns += [f"{dataset}, {optimizer}"] if f"{dataset}, {optimizer}" not in columns else []
            cells.setdefault(row, {})[f"{dataset}, {optimizer}"] = found.entry(dataset, name)
    unknown = Entry(None, None, 0)
    rows: list[tuple[str | Entry, ...]] = []
    rows += [(*row, *(own.get(column, unknown) for column in columns)) for row, own in cells.items()]
    return Sheet(
        "Largest eigenvalue of the Hessian (lower is flatter)", ("Curr.", "Diff."), tuple(columns), tuple(rows),
        _note(found.results, [entry.n for own in cells.values() for entry in own.values()]), lowest=True,
    )  # fmt: skip


def hessian_rows(board: Board, found: Eigenvalues) -> list[dict[str, Any]]:
    """The numbers of the table for programs (see ``figure_row``)."""
    return [
        figure_row(board, dataset, algorithm, values, QUANTITY, "")
        for (dataset, algorithm), values in found.trials.items()
    ]


def _row(curriculum: str) -> str:
    return "ERM" if curriculum == "-" else curriculum


def _note(results: Mapping[Run, Flatness], counts: list[int]) -> str:
    measured = results.values()
    samples = " or ".join(sorted({"256" if one.samples is None else str(one.samples) for one in measured}))
    modes = "; or ".join(sorted({one.mode for one in measured}))
    n = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
    return (
        f"By analyze hessian at model.pkl, on at most {samples} images of each source domain, pooled; {modes}. "
        f"Mean and std / sqrt(n) over n = {n} trials."
    )
