"""Algorithms of a board compared in pairs: the same trial seed, the same environment held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import PairedDifference, benjamini_hochberg, paired_difference
from domainbed_adm.model_selection import SelectionMethod

#: Stands for a dataset's name where the pairs of all of them count.
ALL = "all datasets"


@dataclass(frozen=True)
class Comparison:
    """One method against the baseline on one dataset.

    Attributes:
        dataset: its name, or ``ALL``.
        method: name of the algorithm.
        baseline: name of the algorithm it is compared with.
        left_out: number of (test environment, trial seed) that only one of the two has.
        difference: method - baseline, over the test environments, in percentage points.
        corrected: p corrected over the list that this one comes in.
    """

    dataset: str
    method: str
    baseline: str
    left_out: int
    difference: PairedDifference
    corrected: float | None = None


def comparisons(board: Board, selection: SelectionMethod, baseline: str, methods: Iterable[str]) -> list[Comparison]:
    """Each method against the baseline: on each dataset, then, where several have pairs, over those of all.

    The corrected p are Benjamini and Hochberg's over all p of the list.
    """
    methods = list(methods)

    def compare(label: str, method: str, datasets: Sequence[str]) -> Comparison:
        ours, theirs = (_accuracies(board, selection, name, datasets) for name in (method, baseline))
        pairs = sorted(ours.keys() & theirs.keys())
        a, b = ([100 * side[pair] for pair in pairs] for side in (ours, theirs))
        difference = paired_difference(a, b, [pair[:2] for pair in pairs])
        return Comparison(label, method, baseline, len(ours.keys() ^ theirs.keys()), difference)

    rows = [compare(dataset, method, [dataset]) for dataset in board.environments for method in methods]
    for method in methods:
        if sum(row.method == method and row.difference.n > 0 for row in rows) > 1:
            rows.append(compare(ALL, method, list(board.environments)))
    corrected = benjamini_hochberg([row.difference.p for row in rows])
    return [replace(row, corrected=p) for row, p in zip(rows, corrected, strict=True)]


def _accuracies(
    board: Board, selection: SelectionMethod, algorithm: str, datasets: Sequence[str]
) -> dict[tuple[str, int, int], float]:
    """The accuracy, a fraction, of each (dataset, test environment, trial seed) of an algorithm."""
    scores = board.scores[selection.key]
    return {
        (dataset, env, trial): accuracy
        for dataset in datasets
        for env in range(len(board.environments[dataset]))
        for trial, accuracy in scores.get((dataset, algorithm, env), {}).items()
    }


def compared(
    board: Board, selections: Iterable[SelectionMethod], names: Sequence[str]
) -> dict[SelectionMethod, list[Comparison]]:
    """What ``comparisons`` finds under each selection method; the first of ``names`` is the baseline.

    Raises:
        UserError: there are fewer than two names, one comes twice, the records lack one, or one has no pair anywhere.
    """
    check_names(names)
    for name in names:
        if name not in board.algorithms:
            raise UserError(f"--compare, in these records: {unknown_name(board.algorithms, name, 'algorithm')}")
    baseline, *methods = names
    by_selection = {selection: comparisons(board, selection, baseline, methods) for selection in selections}
    for method in methods:
        if not any(row.method == method and row.difference.n for rows in by_selection.values() for row in rows):
            raise UserError(
                f"--compare: {method} and {baseline} have no accuracy of the same dataset, trial seed and test "
                "environment; --missing without --compare lists the runs there are not"
            )
    return by_selection


def check_names(names: Sequence[str]) -> None:
    """See that there is something to compare.

    Raises:
        UserError: there are fewer than two names, or one comes twice.
    """
    if len(names) < 2:
        raise UserError("--compare needs two algorithms or more, the baseline first: --compare SAM SAM_SSPL_ADM")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--compare has {name} twice")
