"""Exact resume: all that a run is between two steps, in one file that is there whole or not at all.

``checkpoint.pkl`` holds the algorithm's state dict (network, F-SAM's mean, remembered scores, step count), its
optimizers, the figures since the last record, how many records there are, and the states of every random generator. The
data of a step are a function of the step, so no loader's state is needed. It is loaded with ``weights_only``: no code
runs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.training.checkpoint import load_plain, save_model
from domainbed_adm.training.setup import Setup

FILE_NAME = "checkpoint.pkl"
#: Flags that say how or where a run is done, not which run it is.
_FREE_ARGS = ("output_dir", "data_dir", "workers", "checkpoint_every", "skip_model_save", "save_model_every_checkpoint")


@dataclass
class Position:
    """Where a run is: the next step, the figures of each step since the last record, the number of records."""

    next_step: int = 0
    since_record: dict[str, list[float]] = field(default_factory=dict)
    n_records: int = 0


def identity(args: Mapping[str, Any], hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two runs to be one: flags and hyperparameters by name."""
    flags = {f"--{name}": value for name, value in args.items() if name not in _FREE_ARGS and name != "hparams"}
    return flags | {f"hparam {name}": value for name, value in hparams.items()}


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Name what differs between two identities, "--steps (200 there, 300 here)"; None where nothing does."""
    absent = object()
    unlike = [
        f"{name} ({theirs.get(name, 'absent')} there, {ours.get(name, 'absent')} here)"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name, absent) != ours.get(name, absent)
    ]
    return ", ".join(unlike) or None


def run_identity(run: Setup) -> dict[str, Any]:
    """The identity of this run, its data's included."""
    shape = {"input shape": list(run.dataset.input_shape), "classes": run.dataset.classes}
    return identity(run.args, run.hparams) | shape | data_identity(run)


def data_identity(run: Setup) -> dict[str, Any]:
    """What its records keep of the data: the environments' names, and the number of samples of each."""
    return {"environments": run.dataset.environments, "samples": [len(data) for data in run.dataset.datasets]}


def save_position(path: Path, run: Setup, position: Position) -> None:
    """Write the checkpoint, over an older one once it is whole and on the disk."""
    cuda = torch.cuda.get_rng_state_all() if run.device.type == "cuda" else []
    kind, keys, *rest = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state(legacy=True))
    contents = {
        "identity": run_identity(run),
        "position": asdict(position),
        "algorithm": run.algorithm.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in _optimizers(run.algorithm).items()},
        "random": {
            "torch": torch.get_rng_state(),
            "cuda": cuda,
            "python": random.getstate(),
            "numpy": (kind, keys.tolist(), *rest),
        },
    }
    save_model(path, contents)


def load_position(path: Path, run: Setup) -> Position:
    """Put a run, fresh from ``set_up``, into the state that :func:`save_position` kept; return where it is.

    Raises:
        UserError: the file is no checkpoint, or one of another run; the message names what differs.
    """
    contents = load_plain(path, ("identity", "position", "algorithm", "optimizers", "random"))
    unlike = differences(contents["identity"], run_identity(run))
    if unlike:
        raise UserError(f"{path} is a checkpoint of another run: {unlike}. Give another --output_dir, or --restart")
    try:
        run.algorithm.load_state_dict(contents["algorithm"])
        for name, optimizer in _optimizers(run.algorithm).items():
            optimizer.load_state_dict(contents["optimizers"][name])
        position = Position(**contents["position"])
        _restore_random(contents["random"], run.device)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not fit this run: {str(error).splitlines()[0]}; --restart redoes it") from error
    return position


def _restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def _optimizers(algorithm: Any) -> dict[str, torch.optim.Optimizer]:
    return {name: value for name, value in vars(algorithm).items() if isinstance(value, torch.optim.Optimizer)}
