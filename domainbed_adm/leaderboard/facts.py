"""What stands below a table: the selection method, splits, trials, seeds, versions that made it; what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.records import Record

_LISTED = 4


def versions(records: Iterable[Record]) -> str:
    """The package versions, commits and torch versions found in the records; DomainBed's records name none."""
    found = dict.fromkeys(_version(record) for record in records)
    return "; ".join(sorted(found)) or "none"


def _version(record: Record) -> str:
    provenance = record.get("provenance")
    if not isinstance(provenance, dict):
        return "not recorded"
    commit = str(provenance.get("git_commit") or "")[:10]
    own = f"domainbed_adm {provenance.get('version')}" + (f" (commit {commit})" if commit else "")
    return f"{own}, torch {provenance.get('torch')}"


def seeds(records: Iterable[Record], name: str) -> list[int]:
    """The distinct values of one seed of ``args``, sorted."""
    return sorted({record["args"][name] for record in records})


def spoken(numbers: list[int]) -> str:
    """``0, 1, 2`` or, where they are many and consecutive, ``0 to 19``."""
    if len(numbers) > 3 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def provenance_line(board: Board, selection: SelectionMethod, counts: Iterable[int]) -> str:
    """One line for below a table of accuracies.

    Args:
        board: where the table comes from.
        selection: the selection method.
        counts: the number of trials behind each of its cells.
    """
    n = sorted(set(counts) - {0})
    count = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}" if n else "0"
    trials = f"n = {count} {'trial' if count == '1' else 'trials'}"
    return (
        f"{selection_line(selection)} Accuracy in % on the in-split of the test environment, "
        f"mean and std / sqrt(n) over {trials}. {sweep_line(board)}"
    )


def selection_line(selection: SelectionMethod) -> str:
    """The selection method and what it looks at."""
    return f"Selected by {selection.name}: {selection.splits}."


def sweep_line(board: Board) -> str:
    """The seeds, the splits and the versions of the records."""
    records = [record for group in board.records.values() for record in group]
    holdouts = sorted({str(record["args"].get("holdout_fraction", "not recorded")) for record in records})
    return (
        f"Trial seeds {spoken(seeds(records, 'trial_seed'))}; "
        f"hparams seeds {spoken(seeds(records, 'hparams_seed'))}; holdout_fraction {', '.join(holdouts)}. "
        f"Versions: {versions(records)}."
    )


def data_lines(records: Iterable[Record]) -> list[str]:
    """One line for each dataset that not all runs have seen alike; images count where a run recorded them."""
    seen: dict[str, Counter[str]] = {}
    for args, samples in {_run_and_samples(record) for record in records}:
        if samples:
            seen.setdefault(args[0], Counter())[samples] += 1
    return [
        f"runs on {dataset} saw different data, images of each environment: "
        + "; ".join(f"{samples} ({count} runs)" for samples, count in found.most_common())
        for dataset, found in seen.items()
        if len(found) > 1
    ]


def _run_and_samples(record: Record) -> tuple[tuple[str, ...], str]:
    args, provenance = record["args"], record.get("provenance")
    names = ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")
    samples = provenance.get("samples") if isinstance(provenance, dict) else None
    return tuple(str(args[name]) for name in names), " ".join(map(str, samples)) if isinstance(samples, list) else ""


def missing_line(board: Board, selection: SelectionMethod) -> str | None:
    """One line on what has no number, or fewer trials than the sweep; None where all is there."""
    scores = board.scores[selection.key]
    trials = len({trial for by_trial in scores.values() for trial in by_trial})
    absent: list[str] = []
    partial: list[str] = []
    for dataset, names in board.environments.items():
        for algorithm in board.algorithms:
            known = [len(scores.get((dataset, algorithm, env), {})) for env in range(len(names))]
            _note(absent, f"{algorithm} on {dataset}", [env for env, n in enumerate(known) if n == 0], len(names))
            _note(
                partial, f"{algorithm} on {dataset}", [env for env, n in enumerate(known) if 0 < n < trials], len(names)
            )
    if not absent and not partial:
        return None
    parts = [f"no number for {_some(absent)}"] if absent else []
    parts += [f"fewer than {trials} trials for {_some(partial)}"] if partial else []
    return f"{selection.name}: {'; '.join(parts)}. It needs {selection.needs}{_reason(board, selection)}"


def _note(where: list[str], label: str, envs: list[int], count: int) -> None:
    if envs:
        where.append(label if len(envs) == count else f"{label} (test environment {', '.join(map(str, envs))})")


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(labels[:_LISTED]) + more


def _reason(board: Board, selection: SelectionMethod) -> str:
    pairs = any(len(record["args"]["test_envs"]) == 2 for group in board.records.values() for record in group)
    if selection.key == "leave-one-domain-out" and not pairs:
        return ", and there are none: the sweep ran with --single_test_envs"
    return ""
