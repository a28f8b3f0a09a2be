"""What stands below or beside a table: how it was selected and averaged, what is missing, what is not to be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, product

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.model_selection import SelectionMethod, applies
from domainbed_adm.recorded_run import Run, is_alone, is_official, run_label, trouble, with_length
from domainbed_adm.run_files import is_pruned

#: (dataset, algorithm with its ``--epochs`` where these are given, test_envs, trial_seed, hparams_seed)
RunKey = tuple[str, str, tuple[int, ...], int, int]
_LISTED = 4
_PAIRED = "leave-one-domain-out"


def provenance_line(
    board: Board, selection: SelectionMethod, counts: Iterable[int], datasets: Iterable[str] = ()
) -> str:
    """One line below a table of accuracies with ``counts`` trials behind its cells; in its place where all are 0.

    ``datasets`` are those of the table; none: all of the board.
    """
    n = sorted(set(counts) - {0})
    if not n:
        return f"No number: {selection.name} needs {selection.needs}{_reason(board, selection)}."
    count = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    trials = f"n = {count} {'trials' if n[-1] > 1 else 'trial'}{' (no error where n = 1)' if n[0] == 1 else ''}"
    return (
        f"{selection_line(selection)} Accuracy in % on {_tested_on(datasets or board.environments)}, "
        f"mean and std / sqrt(n) over {trials}. {_averaging_line(board.runs)}{board.sweep_line}"
    )


def _averaging_line(runs: Iterable[Run]) -> str:
    """Which runs report averaged weights; empty where none does."""
    counts = Counter(kind for run in runs if (kind := run.hparams.get("averaging", "none")) != "none")
    told = {"swad": "swad (its result, whatever the selection method)"}
    named = ", ".join(f"{count} by {told.get(str(kind), kind)}" for kind, count in sorted(counts.items()))
    return f"Runs with averaged weights: {named}. " if named else ""


def _tested_on(datasets: Iterable[str]) -> str:
    official = [is_official(dataset) for dataset in datasets]
    tested_on = "the in-split of the test environment"
    return (
        "the whole official test set" if all(official) else f"{tested_on}{', or the official test set' * any(official)}"
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
    reasons = ((run, trouble(run, CARDS[run.dataset].num_classes if run.dataset in CARDS else None)) for run in runs)
    return [f"{run.label} ({run.folder.name}): {reason}" for run, reason in reasons if reason]


def shortened(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], f"{more} more like the last"] if more > 1 else lines


def missing_line(board: Board, selection: SelectionMethod) -> str | None:
    """One line on what has no number, or fewer trials than the sweep; None where all is there."""
    most = len(set().union(*board.scores[selection.key].values()))
    absent: list[str] = []
    partial: list[str] = []
    # a set for classification has no pairs and no out-split to test on; others are not asked for their last epoch
    meant = [name for name in board.environments if applies(selection, name)] or list(board.environments)
    for dataset, algorithm in product(meant, board.algorithms):
        names = board.environments[dataset]
        counts = {env: len(board.trials(selection, dataset, algorithm, env)) for env in names}
        for labels, envs in (
            (absent, [env for env, n in counts.items() if not n]),
            (partial, [env for env, n in counts.items() if 0 < n < most]),
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
    if selection.key == _PAIRED and not any(len(run.test_envs) == 2 for run in board.runs):
        return ", and there are none: sweep launch adds them unless it has --single_test_envs"
    return ""


def missing_runs(
    runs: Sequence[Run], selections: Iterable[SelectionMethod], planned: Collection[RunKey] = ()
) -> list[str]:
    """One line for each run that the selection methods need and the records lack, or have only in part.

    Where it is not known what was ``planned``, a sweep is taken to be the full product of the algorithms, trials,
    hparams seeds and environments that its runs show of each dataset. Pairs of test environments belong to it where a
    selection method needs them. A line: ``missing: SAM on PACS, test_envs 0 2, trial 1, hparams 0``.
    """
    reached = reached_steps(runs)
    recorded = {
        (run.dataset, _name(run), tuple(sorted(run.test_envs)), run.trial_seed, run.hparams_seed): run for run in runs
    }
    pairs = any(selection.key == _PAIRED for selection in selections)
    wanted = [key for key in planned if pairs or is_alone(key[0], key[2])] or _product(runs, pairs)
    lines = [f"missing: {run_label(*key)}" for key in wanted if key not in recorded]
    for key, run in sorted(recorded.items()):
        if run.last_step < end_step(run, reached) and not is_pruned(run.folder):
            lines.append(f"unfinished: {run_label(*key)}: step {run.last_step} of {end_step(run, reached)}")
    return lines


def _name(run: Run) -> str:
    return with_length(run.method, run.epochs, run.match_passes)


def reached_steps(runs: Iterable[Run]) -> dict[tuple[str, int | None], int]:
    """The highest step recorded of each dataset, apart for each number of ``--epochs``."""
    reached: dict[tuple[str, int | None], int] = {}
    for run in runs:
        key = run.dataset, run.epochs
        reached[key] = max(reached.get(key, -1), run.last_step)
    return reached


def end_step(run: Run, reached: dict[tuple[str, int | None], int]) -> int:
    """The step that the run ends at, as it says itself, else the last that any run like it reached."""
    return reached[run.dataset, run.epochs] if run.end_step is None else run.end_step


def _product(runs: Sequence[Run], pairs: bool) -> Iterator[RunKey]:
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        algorithms = sorted({_name(run) for run in own})
        trials, seeds = (sorted({run.args[name] for run in own}) for name in ("trial_seed", "hparams_seed"))
        environments, card = range(max(run.n_envs for run in own)), CARDS.get(dataset)
        sizes = (1, 2) if pairs and len(environments) > 2 else (1,)
        official = card.test_envs if card else None
        held_out = [official] if official else [envs for size in sizes for envs in combinations(environments, size)]
        for algorithm, trial, envs, seed in product(algorithms, trials, held_out, seeds):
            yield dataset, algorithm, envs, trial, seed
