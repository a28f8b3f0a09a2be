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

#: (test environment, trial seed) -> accuracy, a fraction
Scores = dict[tuple[int, int], float]


@dataclass(frozen=True)
class Comparison:
    """One method against the baseline on one dataset.

    Attributes:
        dataset: its name, or ``ALL``.
        method: name of the algorithm.
        baseline: name of the algorithm it is compared with.
        left_out: number of (test environment, trial seed) that only one of the two has.
        difference: method - baseline, over the pairs, in percentage points.
        corrected: p corrected over the list that this one comes in.
    """

    dataset: str
    method: str
    baseline: str
    left_out: int
    difference: PairedDifference
    corrected: float | None = None


def comparisons(board: Board, selection: SelectionMethod, baseline: str, methods: Iterable[str]) -> list[Comparison]:
    """Each method against the baseline: on each dataset, then, where several have pairs, over the pairs of all.

    The corrected p are Benjamini and Hochberg's over all p of the list. Pairs that share a test environment are not
    independent, so that each p is too small and each interval too narrow; see ``comparison`` for what they are.
    """
    methods = list(methods)
    scores = board.scores[selection.key]

    def of(dataset: str, algorithm: str) -> Scores:
        environments = range(len(board.environments[dataset]))
        return {
            (env, trial): accuracy
            for env in environments
            for trial, accuracy in scores.get((dataset, algorithm, env), {}).items()
        }

    def compare(label: str, method: str, datasets: Iterable[str]) -> Comparison:
        return _compare(label, method, baseline, [(of(name, method), of(name, baseline)) for name in datasets])

    found = [compare(dataset, method, [dataset]) for dataset in board.environments for method in methods]
    for method in methods:
        if sum(one.method == method and one.difference.n > 0 for one in found) > 1:
            found.append(compare(ALL, method, sorted(board.environments)))
    corrected = benjamini_hochberg([one.difference.p for one in found])
    return [replace(one, corrected=p) for one, p in zip(found, corrected, strict=True)]


def _compare(dataset: str, method: str, baseline: str, sides: Sequence[tuple[Scores, Scores]]) -> Comparison:
    pairs = [(ours[key], theirs[key]) for ours, theirs in sides for key in sorted(ours.keys() & theirs.keys())]
    difference = paired_difference([100 * ours for ours, _ in pairs], [100 * theirs for _, theirs in pairs])
    return Comparison(dataset, method, baseline, sum(len(a.keys() ^ b.keys()) for a, b in sides), difference)


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
    found = {selection: comparisons(board, selection, baseline, methods) for selection in selections}
    with_pairs = {one.method for ones in found.values() for one in ones if one.difference.n}
    for method in methods:
        if method not in with_pairs:
            raise UserError(
                f"--compare: {method} and {baseline} have no accuracy of the same dataset, trial seed and test "
                "environment; --missing without --compare lists the runs there are not"
            )
    return found


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
