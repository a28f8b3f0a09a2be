"""Which runs a sweep's records lack: those never recorded, and those that did not reach their last step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.records import Record, environment_count

#: (dataset, algorithm, trial_seed, hparams_seed, test_envs)
Run = tuple[str, str, int, int, tuple[int, ...]]


def missing_runs(records: Sequence[Record], selections: Iterable[SelectionMethod]) -> list[str]:
    """One line for each run that the selection methods need and the records lack, or have only in part.

    A sweep is taken to be the full product of the algorithms, trials, hparams seeds and environments that its records
    show of each dataset; pairs of test environments belong to it where a selection method needs them.

    Args:
        records: of a sweep.
        selections: the selection methods wanted.

    Returns:
        Lines such as ``missing: SAM on PACS, test_envs 0 2, trial 1, hparams 0``; empty where nothing is missing.
    """
    last: dict[Run, int] = {}
    steps: dict[str, int] = {}
    for record in records:
        run = _run(record)
        last[run] = max(last.get(run, -1), record["step"])
        steps[run[0]] = max(steps.get(run[0], -1), record["step"])
    wanted = {run: last_step(record, steps) for record in records for run in [_run(record)]}
    pairs = any(selection.key == "leave-one-domain-out" for selection in selections)
    lines = [f"missing: {_spoken(run)}" for run in _product(records, pairs) if run not in last]
    for run in sorted(last):
        if last[run] < wanted[run]:
            lines.append(f"unfinished: {_spoken(run)}: step {last[run]} of {wanted[run]}")
    return lines


def _run(record: Record) -> Run:
    args = record["args"]
    held_out = tuple(sorted(args["test_envs"]))
    return args["dataset"], args["algorithm"], args["trial_seed"], args["hparams_seed"], held_out


def last_step(record: Record, reached: dict[str, int]) -> int:
    """The run's last step: from its flags or hparams, else the last that any run of its dataset reached.

    Args:
        record: any of the run.
        reached: the last step recorded of each dataset.
    """
    steps = record["args"].get("steps") or record.get("hparams", {}).get("total_steps")
    return steps - 1 if isinstance(steps, int) else reached[record["args"]["dataset"]]


def _product(records: Sequence[Record], pairs: bool) -> list[Run]:
    runs: list[Run] = []
    for dataset in dict.fromkeys(record["args"]["dataset"] for record in records):
        own = [record for record in records if record["args"]["dataset"] == dataset]
        algorithms, trials, seeds = (
            sorted({record["args"][name] for record in own}) for name in ("algorithm", "trial_seed", "hparams_seed")
        )
        environments = range(max(environment_count(record) for record in own))
        sizes = (1, 2) if pairs and len(environments) > 2 else (1,)
        held_out = [envs for size in sizes for envs in combinations(environments, size)]
        runs += [(dataset, a, t, s, envs) for a in algorithms for t in trials for envs in held_out for s in seeds]
    return runs


def _spoken(run: Run) -> str:
    dataset, algorithm, trial, seed, held_out = run
    return f"{algorithm} on {dataset}, test_envs {' '.join(map(str, held_out))}, trial {trial}, hparams {seed}"
