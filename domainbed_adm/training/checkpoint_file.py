"""Exact resume: all that a run is between two steps, in one file that is there whole or not at all.

``checkpoint.pkl`` holds the algorithm's state dict (network, F-SAM's mean, remembered scores, step count), its
optimizers, the figures since the last record, and the states of every random generator. The data of a step are a
function of the step, so no loader's state is needed. It is loaded with ``weights_only``: no code runs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainbed_adm.errors import UserError, one_line
from domainbed_adm.run_args import differences, identity
from domainbed_adm.system.console import printable, printable_values
from domainbed_adm.training.model_file import load_tensors, save_model
from domainbed_adm.training.provenance import data_identity
from domainbed_adm.training.setup import Setup

_ADVICE = "--restart redoes the run"
_KEYS = ("identity", "position", "algorithm", "optimizers", "random")


@dataclass
class Position:
    """Where a run is: the next step, and the figures of each step since the last record."""

    next_step: int = 0
    since_record: dict[str, list[float]] = field(default_factory=dict)


def unlike(run: Setup, theirs: Mapping[str, Any]) -> str | None:
    """Name what differs between an identity that a file keeps and this run's; None where nothing does.

    What the file, as it is older, does not state of the data counts as equal.
    """
    theirs, data = dict(theirs), {name: value for name, value in _data(run).items() if name in theirs}
    before, now = theirs.pop("fingerprints", []), data.pop("fingerprints", [])
    ours = identity(run.args, run.hparams) | data
    difference = differences(printable_values(theirs), printable_values(ours))
    if difference is None and before != now:
        changed = [name for i, name in enumerate(run.dataset.environments) if before[i : i + 1] != now[i : i + 1]]
        return printable(f"the images or labels of {', '.join(changed)} have changed")
    return difference


def _data(run: Setup) -> dict[str, Any]:
    return {"input shape": list(run.dataset.input_shape), "classes": run.dataset.classes, **data_identity(run)}


def save_position(path: Path, run: Setup, position: Position) -> None:
    """Write the checkpoint, over an older one once it is whole and on the disk.

    Raises:
        UserError: the system refuses; the older one is as it was.
    """
    contents = {
        "identity": identity(run.args, run.hparams) | _data(run),
        "position": asdict(position),
        "algorithm": run.algorithm.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in _optimizers(run).items()},
        "random": _random_states(run.device),
    }
    save_model(path, contents)


def load_position(path: Path, run: Setup) -> Position:
    """Put a run, fresh from ``set_up``, into the state that :func:`save_position` kept; return where it is.

    Raises:
        UserError: the file is no checkpoint, or one of another run or of another version of the code; the message
            names what differs. The run may be changed in part, and is of no more use.
    """
    contents = load_tensors(path, _KEYS, _ADVICE)
    difference = unlike(run, contents["identity"])
    if difference:
        raise UserError(f"{path} is a checkpoint of another run: {difference}. Give another --output_dir, or --restart")
    try:
        run.algorithm.load_state_dict(contents["algorithm"])
        for name, optimizer in _optimizers(run).items():
            optimizer.load_state_dict(contents["optimizers"][name])
        position = Position(**contents["position"])
        _restore_random(contents["random"], run.device)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        kind = "" if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__} "
        raise UserError(f"{path} does not fit this run: {kind}{one_line(error)}; {_ADVICE}") from error
    return position


def saved_step(path: Path) -> int:
    """The step that a run goes on from.

    Raises:
        UserError: the file is no checkpoint.
    """
    return int(load_tensors(path, _KEYS, _ADVICE)["position"]["next_step"])


def _random_states(device: torch.device) -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
    }


def _restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    cuda = states["cuda"]
    if isinstance(cuda, list):  # as earlier versions wrote it: of every GPU that the process saw, the run's first
        cuda = cuda[0] if cuda else None
    if device.type == "cuda" and cuda is not None:
        torch.cuda.set_rng_state(cuda, device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def _optimizers(run: Setup) -> dict[str, torch.optim.Optimizer]:
    return {name: value for name, value in vars(run.algorithm).items() if isinstance(value, torch.optim.Optimizer)}
