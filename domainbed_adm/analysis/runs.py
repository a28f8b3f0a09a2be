"""What ``analyze`` is asked for: the runs, found and named for people, and the settings. Loads no torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed_adm.datasets.environment_names import named, numbers_of
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS
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


@dataclass(frozen=True)
class Settings:
    """Which model of each run, and which sample of its data."""

    checkpoint: str = MODEL  # the model's file in the run's folder
    data_dir: str | None = None  # None: where the data lay in training
    samples: int | None = None  # images of each environment; None: 48, or all where there are fewer
    #: Images of each domain in a mini-batch; None: the run's, but at least 64 where no BatchNorm in training mode makes
    #: the loss depend on it.
    batch_size: int | None = None
    seed: int = 0  # of the sample, the directions and the vectors
    double: bool = False  # whether to compute in float64
    threads: int = 1  # of torch on the CPU


@dataclass(frozen=True)
class HessianSettings:
    """The arguments of ``largest_eigenvalues``, ``hutchinson_trace`` and ``random_rise`` of these names."""

    eigenvalues: int = 3
    tolerance: float = 1e-2
    max_restarts: int = 10
    trace_tolerance: float = 0.1
    max_vectors: int = 15
    directions: int = 10
    rho: float | None = None  # radius of the sharpness; None: as ``common_rho`` says


@dataclass(frozen=True)
class LandscapeSettings:
    """Where to compute the loss."""

    points: int = 41  # along one direction, odd
    plane_points: int = 15  # along each of two, odd
    radius: float = 1.0  # of both; 1 reaches as far from each filter as it is long


def find_runs(paths: Iterable[Path], filters: argparse.Namespace | None = None) -> list[Run]:
    """The runs in these folders, each the output_dir of a run or of a sweep; those of a sweep in the tables' order.

    A run that is found twice counts once. ``filters`` may have ``algorithms``, ``dataset``, ``test_envs`` and
    ``trial_seed``: what a run must have been trained with; None asks nothing.

    Raises:
        UserError: a folder holds no run, or no run is as the filters ask.
    """
    runs = list({run.folder.resolve(): run for path in paths for run in _runs_of(path)}.values())
    kept = [run for run in runs if _is_asked_for(run, filters)]
    if not kept:
        raise UserError(f"none of the {len(runs)} runs is as the flags ask; they have {_choices(runs)}")
    return kept


def with_checkpoint(runs: Sequence[Run], checkpoint: str = MODEL) -> list[Run]:
    """The runs that hold this file; a warning counts the others.

    Raises:
        UserError: none does, or it is no name of a model's file.
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
    names = [_label(one, datasets) for one in args]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _runs_of(path: Path) -> list[Run]:
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {kind}: give the output_dir of a run or of a sweep")
    files = [path / RESULTS, *sorted(path.glob(f"*/{RESULTS}"))]
    runs = [run for file in files if file.is_file() for run in read_runs(file)[:1]]
    if not runs:
        raise UserError(f"no run in {path}: give the output_dir of a run, which holds {RESULTS}, or of a sweep")
    return sorted(
        runs, key=lambda run: (run.dataset, place(run.algorithm), run.test_envs, run.hparams_seed, run.trial_seed)
    )


def place(algorithm: str) -> tuple[int, str]:
    """Sorts methods: the grid's in its order, then the others by name."""
    return (list(METHODS).index(algorithm) if algorithm in METHODS else len(METHODS), algorithm)


def _is_asked_for(run: Run, filters: argparse.Namespace | None) -> bool:
    asked = {flag: value for flag in _FILTERS if (value := getattr(filters, flag, None)) is not None}
    own = {flag: run.args[_FILTERS[flag]] for flag in asked}
    if "test_envs" in asked:
        try:
            asked["test_envs"] = run_numbers(asked["test_envs"], run)
        except UserError:
            return False  # a name of another dataset's, or of none: what there is is listed where no run is left
    return all(own[flag] in value if flag == "algorithms" else own[flag] == value for flag, value in asked.items())


def run_numbers(given: Sequence[int | str], run: Run) -> list[int]:
    """The numbers of these environments of a run's dataset; a UserError where a name is none of them."""
    return numbers_of(given, run.dataset, run.args.get("data_dir"), run.environments)


def _choices(runs: Sequence[Run]) -> str:
    values = {
        flag: dict.fromkeys(_held_out(run) if flag == "test_envs" else str(run.args[name]) for run in runs)
        for flag, name in _FILTERS.items()
    }
    return "; ".join(f"--{flag} {', '.join(names)}" for flag, names in values.items())


def _held_out(run: Run) -> str:
    """The environments it holds out, with their names where these are known: "0 2 (A, P)"."""
    known = max(run.test_envs) < len(run.environments)
    names = f" ({named(run.test_envs, run.environments)})" if known else ""
    return " ".join(map(str, run.test_envs)) + names


def _label(args: Mapping[str, Any], with_dataset: bool) -> str:
    held_out = " ".join(map(str, args["test_envs"]))
    on = f" on {args['dataset']}" if with_dataset else ""
    hparams = f", hparams {args['hparams_seed']}" if args.get("hparams_seed") else ""
    return f"{args['algorithm']}{on}, test env {held_out}{hparams}, trial {args['trial_seed']}"
