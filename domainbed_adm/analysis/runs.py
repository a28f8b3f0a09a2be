"""The runs to analyse: found below the folders given, and named for people. Loads no torch."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import METHODS
from domainbed_adm.recorded_run import Run
from domainbed_adm.records import read_runs
from domainbed_adm.run_files import MODEL, RESULTS, model_suffix
from domainbed_adm.system.console import warn

#: The flags of ``analyze`` that choose runs, and the arguments of the runs that they ask for.
_FILTERS = {"algorithms": "algorithm", "dataset": "dataset", "test_envs": "test_envs", "trial_seed": "trial_seed"}
_KEEP = (
    "do not give --skip_model_save to train; --save_model_every_checkpoint keeps those of every checkpoint as "
    "model_step<step>.pkl"
)


def find_runs(paths: Iterable[Path], filters: argparse.Namespace | None = None) -> list[Run]:
    """The runs in these folders, each the output_dir of a run or of a sweep; those of a sweep in the tables' order.

    Args:
        paths: folders; a run that is found twice counts once.
        filters: may have ``algorithms``, ``dataset``, ``test_envs`` and ``trial_seed``: what a run must have been
            trained with. None, or an attribute that is None, asks nothing.

    Raises:
        UserError: a folder holds no run, or no run is as the filters ask.
    """
    by_folder: dict[Path, Run] = {}
    for path in paths:
        for run in _runs_of(path):
            by_folder.setdefault(run.folder.resolve(), run)
    runs = list(by_folder.values())
    kept = [run for run in runs if _is_asked_for(run.args, filters)]
    if not kept:
        raise UserError(f"none of the {len(runs)} runs is as the flags ask; they have {_choices(runs)}")
    return kept


def with_checkpoint(runs: Sequence[Run], checkpoint: str = MODEL) -> list[Run]:
    """The runs that hold this file; a warning counts the others.

    Raises:
        UserError: none does; the message says how to keep one. Or it is no name of a model's file.
    """
    model_suffix(checkpoint)
    kept = [run for run in runs if (run.folder / checkpoint).is_file()]
    if not kept:
        where = str(runs[0].folder) if len(runs) == 1 else f"any of the {len(runs)} runs"
        there = sorted({path.name for run in runs for path in run.folder.glob("model*.pkl")})
        held = f" (there are {', '.join(there)})" if there else ""
        raise UserError(f"no {checkpoint} in {where}{held}. To keep models, {_KEEP}")
    if len(kept) < len(runs):
        warn(f"{len(runs) - len(kept)} of {len(runs)} runs have no {checkpoint}: left out")
    return kept


def labels(args: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each run, of its flags: "SAM, test env 0, trial 0"; the dataset where there are several."""
    datasets = len({one["dataset"] for one in args}) > 1
    named = [_label(one, datasets) for one in args]
    count, seen = Counter(named), Counter[str]()
    for i, name in enumerate(named):
        if count[name] > 1:
            seen[name] += 1
            named[i] = f"{name} ({seen[name]})"
    return named


def _runs_of(path: Path) -> list[Run]:
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {kind}: give the output_dir of a run or of a sweep")
    files = [path / RESULTS, *sorted(path.glob(f"*/{RESULTS}"))]
    runs = [run for file in files if file.is_file() for run in read_runs(file)[:1]]
    if not runs:
        raise UserError(f"no run in {path}: give the output_dir of a run, which holds {RESULTS}, or of a sweep")
    places = {name: i for i, name in enumerate(METHODS)}

    def place(run: Run) -> tuple[Any, ...]:
        position = places.get(run.algorithm, len(places))
        return (run.dataset, position, run.algorithm, run.test_envs, run.hparams_seed, run.trial_seed)

    return sorted(runs, key=place)


def _is_asked_for(args: Mapping[str, Any], filters: argparse.Namespace | None) -> bool:
    for flag, name in _FILTERS.items():
        asked = getattr(filters, flag, None)
        if asked is not None and (args[name] not in asked if flag == "algorithms" else args[name] != asked):
            return False
    return True


def _choices(runs: Sequence[Run]) -> str:
    values = {
        flag: dict.fromkeys(str(run.args[name]).strip("[]").replace(",", "") for run in runs)
        for flag, name in _FILTERS.items()
    }
    return "; ".join(f"--{flag} {', '.join(names)}" for flag, names in values.items())


def _label(args: Mapping[str, Any], with_dataset: bool) -> str:
    held_out = " ".join(map(str, args["test_envs"]))
    on = f" on {args['dataset']}" if with_dataset else ""
    hparams = f", hparams {args['hparams_seed']}" if args.get("hparams_seed") else ""
    return f"{args['algorithm']}{on}, test env {held_out}{hparams}, trial {args['trial_seed']}"
