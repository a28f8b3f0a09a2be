"""What ``output_dir`` holds of a run, nothing, a part to go on from, or all of it, and exact resume from that part.

``checkpoint.pkl`` is all that a run is between two steps: the algorithm's state dict (network, F-SAM's mean, remembered
scores, step count), its optimizers and loss scaler, averaged weights, the figures since the last record, and the
states of every random generator. Of an algorithm of DomainBed's it is all that the object holds (``object_state``).
The data of a step are a function of the step, so no loader's state is needed.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import domainbed_adm
from domainbed_adm import hparams_registry, records
from domainbed_adm.errors import UserError, one_line
from domainbed_adm.run_args import differences, identity
from domainbed_adm.run_files import CHECKPOINT, DONE, LOGGER_FOLDERS, MODEL, RESULTS, files_of_run
from domainbed_adm.system.console import printable, printable_values, warn
from domainbed_adm.system.process import git_commit
from domainbed_adm.training.devices import depends_on_devices
from domainbed_adm.training.model_file import load_tensors, save_model
from domainbed_adm.training.object_state import capture, not_kept, restore
from domainbed_adm.training.setup import Setup
from domainbed_adm.upstream.hosted import checkout_of

_ADVICE = "--restart redoes the run"
_KEYS = ("identity", "position", "algorithm", "optimizers", "random")


@dataclass
class Position:
    """Where a run is: the next step, and the figures of each step since the last record."""

    next_step: int = 0
    since_record: dict[str, list[float]] = field(default_factory=dict)


def claim(output_dir: Path, restart: bool) -> None:
    """Make sure that a run's files can be written to ``output_dir``; with ``restart``, remove those of an earlier one.

    Raises:
        UserError: they cannot.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir).close()
        if shutil.disk_usage(output_dir).free < 2**20:
            raise UserError(
                f"--output_dir {output_dir}: the disk is full: free some space and give the same command again"
            )
        if restart:
            for path in files_of_run(output_dir):
                path.unlink(missing_ok=True)
            for name in LOGGER_FOLDERS:
                shutil.rmtree(output_dir / name, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror}") from error


def is_finished(run: Setup, output_dir: Path) -> bool:
    """Whether the run is done, and all that was asked of it is there.

    Raises:
        UserError: it is done, but its records or its model are lost; or another run is done.
    """
    if not (output_dir / DONE).exists():
        return False
    _check_recorded(run, output_dir / RESULTS, run.n_steps, "the finished run had")
    if not run.args["skip_model_save"] and not (output_dir / MODEL).exists():
        raise UserError(
            f"{output_dir} holds this run, finished, but no model.pkl (trained with --skip_model_save, or removed): "
            "--restart redoes the run; with --skip_model_save it is left as it is"
        )
    return True


def find_position(run: Setup, output_dir: Path) -> Position:
    """Where to begin: at the checkpoint, records beyond it dropped; else at the start.

    A checkpoint or records that are damaged, lost or another run's are a UserError.
    """
    checkpoint, path = output_dir / CHECKPOINT, output_dir / RESULTS
    position = _load_position(checkpoint, run) if checkpoint.exists() else Position()
    _check_recorded(run, path, position.next_step, "the checkpoint counts")
    if path.exists():
        records.keep_steps(path, run.checkpoints_before(position.next_step))
    return position


def follow_position(run: Setup, output_dir: Path) -> Position:
    """What :func:`find_position` finds in the process that leads, for another one; reads the checkpoint alone.

    Raises:
        UserError: it is damaged, or another run's.
    """
    checkpoint = output_dir / CHECKPOINT
    return _load_position(checkpoint, run) if checkpoint.exists() else Position()


def _check_recorded(run: Setup, path: Path, next_step: int, counted: str) -> None:
    runs = records.read_runs(path) if path.exists() else []
    for other in runs:
        for made_by in other.provenances or ({},):
            data = {name: made_by[name] for name in _environments(run) if name in made_by}
            _check_same(run, identity(other.args, other.hparams) | data, f"{path.parent} holds another run")
    expected = set(run.checkpoints_before(next_step))
    kept = expected.intersection(step for other in runs for step in other.steps.tolist())
    if kept != expected:
        raise UserError(
            f"{path} has {len(kept)} of the {len(expected)} records that {counted}: put the file back, or --restart"
        )


def _check_same(run: Setup, theirs: Mapping[str, Any], otherwise: str) -> None:
    # data that an older file does not state are equal
    theirs, data = dict(theirs), {name: value for name, value in _data(run).items() if name in theirs}
    before, now = theirs.pop("fingerprints", []), data.pop("fingerprints", [])
    ours = identity(run.args, run.hparams) | data
    known = hparams_registry.hparams_of(run.args["algorithm"], run.args["dataset"])
    # an hparam that an older file lacks had its default; or what the run would have set
    lacked = {name: run.hparams[name] if spec.set_by_run else spec.default for name, spec in known.items()}
    theirs = {f"hparam {name}": value for name, value in lacked.items() if f"hparam {name}" in ours} | theirs
    difference = differences(printable_values(theirs), printable_values(ours))
    if difference is None and before != now:
        changed = [name for i, name in enumerate(run.dataset.environments) if before[i : i + 1] != now[i : i + 1]]
        difference = printable(f"the images or labels of {', '.join(changed)} have changed")
    if difference:
        raise UserError(f"{otherwise}: {difference}. Give another --output_dir, or --restart")


def save_position(path: Path, run: Setup, position: Position) -> None:
    """Write the checkpoint, over an older one once it is whole and on the disk.

    None is written where an algorithm of DomainBed's holds what cannot be kept, which is said once.
    """
    state: Any = None
    if run.kinds is not None:
        state, kinds, lost = capture(run.algorithm, run.kinds)
        if lost:
            if not set(lost) <= run.told:
                warn(not_kept(run.args["algorithm"], lost))
            run.told.update(lost)
            return
    kind, keys, *rest = np.random.get_state(legacy=True)
    contents = {
        "identity": identity(run.args, run.hparams) | _data(run),
        "position": asdict(position),
        "algorithm": run.algorithm.state_dict() if state is None else state,
        "optimizers": {name: one.state_dict() for name, one in run.optimizers.items()} if state is None else {},
        "averaging": run.average.state_dict() if run.average else None,
        "scaler": run.scaler.state_dict() if run.scaler else None,
        "random": {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
            "python": random.getstate(),
            "numpy": (kind, np.asarray(keys).tolist(), *rest),
        },
    }
    save_model(path, contents)


def _load_position(path: Path, run: Setup) -> Position:
    # On an error the run may be changed in part, and is of no more use.
    contents = load_tensors(path, _KEYS, _ADVICE)
    _check_same(run, contents["identity"], f"{path} is a checkpoint of another run")
    try:
        if run.kinds is None:
            run.algorithm.load_state_dict(contents["algorithm"])
            for name, optimizer in run.optimizers.items():
                optimizer.load_state_dict(contents["optimizers"][name])
        else:
            restore(contents["algorithm"], run.algorithm, run.device)
        if run.average:
            run.average.load_state_dict(contents["averaging"])
        if run.scaler:
            run.scaler.load_state_dict(contents["scaler"])
        position, states = Position(**contents["position"]), contents["random"]
        torch.set_rng_state(states["torch"])
        cuda = states["cuda"]
        if isinstance(cuda, list):  # as earlier versions wrote it: of every GPU that the process saw, the run's first
            cuda = cuda[0] if cuda else None
        if run.device.type == "cuda" and cuda is not None:
            torch.cuda.set_rng_state(cuda, run.device)
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, StopIteration) as error:
        kind = "" if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__} "
        raise UserError(f"{path} does not fit this run: {kind}{one_line(error)}; {_ADVICE}") from error
    return position


def saved_step(path: Path) -> int:
    """The step that a run goes on from."""
    return int(load_tensors(path, _KEYS, _ADVICE)["position"]["next_step"])


def provenance(run: Setup) -> dict[str, Any]:
    """The ``provenance`` object of a run's records (see ``records``): versions, commit, device, threads, seed, length,
    data.
    """
    return {
        "version": domainbed_adm.__version__,
        "git_commit": git_commit(Path(__file__).resolve().parents[2]),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seed": run.args["seed"],
        "n_steps": run.n_steps,
        **({"domainbed_commit": git_commit(checkout)} if (checkout := checkout_of(run.algorithm)) else {}),
        **_environments(run),
    }


def _environments(run: Setup) -> dict[str, Any]:
    return {
        "environments": run.dataset.environments,
        "samples": [len(environment) for environment in run.dataset.datasets],
        "fingerprints": [environment.fingerprint for environment in run.dataset.datasets],
        "reduced_images": [environment.reduced for environment in run.dataset.datasets],
    }


def _data(run: Setup) -> dict[str, Any]:
    data = {"input shape": list(run.dataset.input_shape), "classes": run.dataset.classes, **_environments(run)}
    if depends_on_devices(run.algorithm, run.hparams, run.args["batchnorm"]):
        data["--devices"] = run.ranks.count
    return data
