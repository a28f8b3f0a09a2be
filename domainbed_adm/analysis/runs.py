"""The runs to analyse: found below the folders given, named for people, opened as they were trained."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import METHODS
from domainbed_adm.recorded_run import Run
from domainbed_adm.records import read_runs
from domainbed_adm.run_files import MODEL, RESULTS, model_suffix
from domainbed_adm.system.console import warn

if TYPE_CHECKING:
    import torch

    from domainbed_adm.datasets.base import MultipleDomainDataset
    from domainbed_adm.training.splits import Splits

Result = TypeVar("Result")
#: What tells one run of a sweep from another, beside its hparams.
_FACTS = ("algorithm", "dataset", "test_envs", "trial_seed")
_KEEP = (
    "do not give --skip_model_save to train; --save_model_every_checkpoint keeps those of every checkpoint as "
    "model_step<step>.pkl"
)


@dataclass
class OpenRun:
    """A trained algorithm on the device, in evaluation mode, beside its data as training split them."""

    folder: Path
    args: dict[str, Any]
    hparams: dict[str, Any]
    algorithm: Any
    dataset: MultipleDomainDataset
    splits: list[Splits]
    device: torch.device


def find_runs(paths: Iterable[Path], filters: argparse.Namespace | None = None) -> list[Run]:
    """The runs in these folders, each the output_dir of a run or of a sweep; those of a sweep in the tables' order.

    Args:
        paths: folders; a run that is found twice counts once.
        filters: may have ``algorithms``, ``dataset``, ``test_envs`` and ``trial_seed``: what a run must have been
            trained with. None, or an attribute that is None, asks nothing.

    Raises:
        UserError: a folder holds no run, or no run is as the filters ask.
    """
    found: dict[Path, Run] = {}
    for path in paths:
        for run in _runs_of(path):
            found.setdefault(run.folder.resolve(), run)
    runs = list(found.values())
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


def result_path(folder: Path, checkpoint: str, kind: str, ending: str) -> Path:
    """Where a model's result lies: ``hessian.json`` of model.pkl, ``hessian_step300.json`` of model_step300.pkl.

    Raises:
        UserError: ``checkpoint`` is no name of a model's file.
    """
    return folder / f"{kind}{model_suffix(checkpoint)}.{ending}"


def load_results(
    folder: Path,
    checkpoint: str,
    kind: str,
    ending: str,
    read: Callable[[Path], Result],
    faults: tuple[type[Exception], ...],
) -> list[Result]:
    """What lies at :func:`result_path` in the run in ``folder``, or in the runs of the sweep there, by folder.

    Args:
        folder: of a run or of a sweep.
        checkpoint: name of the model's file.
        kind: of result.
        ending: of its files.
        read: reads one.
        faults: what it raises of a file that is damaged or another's, which gets a warning and is left out.
    """
    found = []
    for path in (place for place in (folder, *sorted(folder.glob("*/"))) if place.is_dir()):
        file = result_path(path, checkpoint, kind, ending)
        if file.is_file():
            try:
                found.append(read(file))
            except faults as error:
                warn(f"{file} left out: no result of analyze {kind} ({' '.join(str(error).split())[:100]})")
    return found


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


def open_run(run: Run, checkpoint: str = MODEL, data_dir: str | None = None) -> OpenRun:
    """Load a run's model, and its dataset and splits as its flags describe them.

    Args:
        run: from :func:`find_runs`.
        checkpoint: the model's file in it.
        data_dir: where the data lie now; None: where they lay.

    Raises:
        UserError: there is no such file, or none of ours, or another run's; the data are not there, or of another
            shape.
    """
    import torch

    from domainbed_adm.datasets import get_dataset_class
    from domainbed_adm.training.model_file import load_model, restore_algorithm
    from domainbed_adm.training.setup import check_test_envs
    from domainbed_adm.training.splits import split_environments

    contents = load_model(run.folder / checkpoint)
    _check_same_run(run, contents["args"], checkpoint)
    args, hparams = contents["args"], contents["model_hparams"]
    place = data_dir if data_dir is not None else args.get("data_dir")
    dataset = get_dataset_class(args["dataset"])(place, args["test_envs"], hparams)
    check_test_envs(args["test_envs"], dataset.environments)
    _check_same_data(run, contents, dataset)
    splits = split_environments(
        [len(environment) for environment in dataset.datasets],
        args["test_envs"],
        args["trial_seed"],
        args["holdout_fraction"],
        args["uda_holdout_fraction"],
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return OpenRun(run.folder, args, hparams, restore_algorithm(contents).to(device), dataset, splits, device)


def _runs_of(path: Path) -> list[Run]:
    """The runs of one folder.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {kind}: give the output_dir of a run or of a sweep")
    files = [path / RESULTS, *sorted(path.glob(f"*/{RESULTS}"))]
    runs = [run for file in files if file.is_file() for run in read_runs(file)[:1]]
    if not runs:
        raise UserError(f"no run in {path}: give the output_dir of a run, which holds {RESULTS}, or of a sweep")
    return sorted(runs, key=_place)


def _place(run: Run) -> tuple[Any, ...]:
    names, args = list(METHODS), run.args
    position = names.index(args["algorithm"]) if args["algorithm"] in names else len(names)
    return (args["dataset"], position, args["algorithm"], args["test_envs"], args["hparams_seed"], args["trial_seed"])


def _is_asked_for(args: Mapping[str, Any], filters: argparse.Namespace | None) -> bool:
    algorithms = getattr(filters, "algorithms", None)
    exact = {name: getattr(filters, name, None) for name in ("dataset", "test_envs", "trial_seed")}
    return (algorithms is None or args["algorithm"] in algorithms) and all(
        value is None or args[name] == value for name, value in exact.items()
    )


def _choices(runs: Sequence[Run]) -> str:
    def named(flag: str, name: str) -> str:
        values = dict.fromkeys(str(run.args[name]).strip("[]").replace(",", "") for run in runs)
        return f"--{flag} {', '.join(values)}"

    return "; ".join(map(named, ("algorithms", "dataset", "test_envs", "trial_seed"), _FACTS))


def _label(args: Mapping[str, Any], with_dataset: bool) -> str:
    held_out = " ".join(map(str, args["test_envs"]))
    on = f" on {args['dataset']}" if with_dataset else ""
    hparams = f", hparams {args['hparams_seed']}" if args.get("hparams_seed") else ""
    return f"{args['algorithm']}{on}, test env {held_out}{hparams}, trial {args['trial_seed']}"


def _check_same_run(run: Run, args: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse a model that another run has made.

    Raises:
        UserError: the message names what differs.
    """
    unlike = [
        f"{name} {args.get(name)} in the model, {run.args.get(name)} in the records"
        for name in (*_FACTS, "hparams_seed")
        if args.get(name) != run.args.get(name)
    ]
    if unlike:
        raise UserError(f"{run.folder / checkpoint} is another run's: {'; '.join(unlike)}")


def _check_same_data(run: Run, contents: Mapping[str, Any], dataset: MultipleDomainDataset) -> None:
    """Refuse data that the model was not trained on.

    Raises:
        UserError: the message names what differs.
    """
    known = run.provenance
    sizes = [len(environment) for environment in dataset.datasets]
    trained_and_here = {
        "inputs": (tuple(contents["model_input_shape"]), tuple(dataset.input_shape)),
        "classes": (contents["model_num_classes"], dataset.num_classes),
        "source domains": (contents["model_num_domains"], len(dataset) - len(contents["args"]["test_envs"])),
        "images of each environment": (known.get("samples", sizes), sizes),
    }
    unlike = [f"{name} {there}, here {here}" for name, (there, here) in trained_and_here.items() if there != here]
    names = zip(contents["classes"] or dataset.classes, dataset.classes, strict=False)
    unlike = unlike or [f"class {there}, here {here}" for there, here in names if there != here][:1]
    if unlike:
        raise UserError(
            f"{run.folder} was trained on other data: {'; '.join(unlike)}. --data_dir names the data's folder"
        )
