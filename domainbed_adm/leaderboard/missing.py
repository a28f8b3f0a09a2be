"""Which runs a sweep's records lack: those never recorded, and those that did not reach their last step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, product

from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run, run_label

#: (dataset, algorithm, test_envs, trial_seed, hparams_seed)
Key = tuple[str, str, tuple[int, ...], int, int]


def missing_runs(
    runs: Sequence[Run], selections: Iterable[SelectionMethod], planned: Collection[Key] = ()
) -> list[str]:
    """One line for each run that the selection methods need and the records lack, or have only in part.

    Where it is not known what was planned, a sweep is taken to be the full product of the algorithms, trials, hparams
    seeds and environments that its runs show of each dataset. Pairs of test environments belong to it where a selection
    method needs them.

    Args:
        runs: of a sweep.
        selections: the selection methods wanted.
        planned: the runs that the sweep's launches were for, each once.

    Returns:
        Lines such as ``missing: SAM on PACS, test_envs 0 2, trial 1, hparams 0``; empty where nothing is missing.
    """
    reached = reached_steps(runs)
    recorded = {_key(run): run for run in runs}
    pairs = any(selection.key == "leave-one-domain-out" for selection in selections)
    wanted = [key for key in planned if pairs or len(key[2]) == 1] or _product(runs, pairs)
    lines = [f"missing: {run_label(*key)}" for key in wanted if key not in recorded]
    for key in sorted(recorded):
        at, end = recorded[key].last_step, end_step(recorded[key], reached)
        if at < end:
            lines.append(f"unfinished: {run_label(*key)}: step {at} of {end}")
    return lines


def reached_steps(runs: Iterable[Run]) -> dict[str, int]:
    """The highest step recorded of each dataset."""
    reached: dict[str, int] = {}
    for run in runs:
        reached[run.dataset] = max(reached.get(run.dataset, -1), run.last_step)
    return reached


def end_step(run: Run, reached: dict[str, int]) -> int:
    """The step that the run ends at: from its flags or hparams, else the last that any run of its dataset reached.

    Args:
        run: the run.
        reached: the last step recorded of each dataset.
    """
    steps = run.args.get("steps") or run.hparams.get("total_steps")
    return steps - 1 if isinstance(steps, int) else reached[run.dataset]


def _key(run: Run) -> Key:
    return run.dataset, run.algorithm, tuple(sorted(run.test_envs)), run.trial_seed, run.hparams_seed


def _product(runs: Sequence[Run], pairs: bool) -> Iterator[Key]:
    """Every run of a sweep over what its runs show."""
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        algorithms, trials, seeds = (
            sorted({run.args[name] for run in own}) for name in ("algorithm", "trial_seed", "hparams_seed")
        )
        environments = range(max(run.n_envs for run in own))
        sizes = (1, 2) if pairs and len(environments) > 2 else (1,)
        held_out = [envs for size in sizes for envs in combinations(environments, size)]
        for algorithm, trial, envs, seed in product(algorithms, trials, held_out, seeds):
            yield dataset, algorithm, envs, trial, seed
