"""What stands below a table: the selection method, splits, trials, seeds, versions; what is missing or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run, trouble

_LISTED = 4


def provenance_line(board: Board, selection: SelectionMethod, counts: Iterable[int]) -> str:
    """One line for below a table of accuracies, or in its place where it has none.

    Args:
        board: where the table comes from.
        selection: the selection method.
        counts: the number of trials behind each of its cells.
    """
    n = sorted(set(counts) - {0})
    if not n:
        return f"No number: {selection.name} needs {selection.needs}{_reason(board, selection)}."
    count = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    trials = f"n = {count} {'trials' if n[-1] > 1 else 'trial'}{' (no error where n = 1)' if n[0] == 1 else ''}"
    return (
        f"{selection_line(selection)} Accuracy in % on the in-split of the test environment, "
        f"mean and std / sqrt(n) over {trials}. {board.sweep_line}"
    )


def selection_line(selection: SelectionMethod) -> str:
    """The selection method and what it looks at."""
    return f"Selected by {selection.name}: {selection.splits}."


def data_lines(runs: Iterable[Run]) -> list[str]:
    """One line for each dataset that not all runs have seen alike; images count where a run recorded them."""
    seen: dict[str, Counter[str]] = {}
    for run in runs:
        samples = run.provenance.get("samples")
        if isinstance(samples, list):
            seen.setdefault(run.dataset, Counter())[" ".join(map(str, samples))] += 1
    return [
        f"runs on {dataset} saw different data, images of each environment: "
        + "; ".join(f"{samples} ({count} runs)" for samples, count in counts.most_common())
        for dataset, counts in seen.items()
        if len(counts) > 1
    ]


def trouble_lines(runs: Iterable[Run]) -> list[str]:
    """One line for each run that exploded or ended at chance (see ``recorded_run.trouble``)."""
    lines = []
    for run in runs:
        card = CARDS.get(run.dataset)
        reason = trouble(run, card.num_classes if card else None)
        if reason:
            lines.append(f"{run.label} ({run.folder.name}): {reason}")
    return lines


def shortened(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], f"{more} more like the last"] if more > 1 else lines


def missing_line(board: Board, selection: SelectionMethod) -> str | None:
    """One line on what has no number, or fewer trials than the sweep; None where all is there."""
    most = len(set().union(*board.scores[selection.key].values()))
    absent: list[str] = []
    partial: list[str] = []
    for dataset, names in board.environments.items():
        for algorithm in board.algorithms:
            counts = [len(board.trials(selection, dataset, algorithm, env)) for env in range(len(names))]
            for labels, envs in (
                (absent, [env for env, n in enumerate(counts) if not n]),
                (partial, [env for env, n in enumerate(counts) if 0 < n < most]),
            ):
                some = f" (test environment {', '.join(map(str, envs))})" if len(envs) < len(names) else ""
                labels += [f"{algorithm} on {dataset}{some}"] if envs else []
    if not absent and not partial:
        return None
    parts = [f"no number for {_some(absent)}"] if absent else []
    parts += [f"fewer than {most} trials for {_some(partial)}"] if partial else []
    return f"{selection.name}: {'; '.join(parts)}. It needs {selection.needs}{_reason(board, selection)}"


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(labels[:_LISTED]) + more


def _reason(board: Board, selection: SelectionMethod) -> str:
    pairs = any(len(run.test_envs) == 2 for run in board.runs)
    if selection.key == "leave-one-domain-out" and not pairs:
        return ", and there are none: sweep launch adds them unless it has --single_test_envs"
    return ""
