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
from typing import Any, cast

import numpy as np
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import Choice, Number
from domainbed_adm.run_args import differences, identity
from domainbed_adm.training.loaded import optimizer_fault, step_state_fault, weights_fault
from domainbed_adm.training.model_file import load_plain, save_model
from domainbed_adm.training.schema import DENSE, DICT, FLOAT, PLAIN, WEIGHTS, Listed, Maybe, Named, fault
from domainbed_adm.training.setup import Setup

_ADVICE = "--restart redoes the run"
#: The states of Python's and NumPy's generators; a number beyond would have them read what is not theirs.
_WORD = Number(0, 2**32 - 1, integer=True)
_RANDOM = {
    "torch": DENSE,
    "cuda": Listed(DENSE),
    "python": (Choice((3,)), Listed(_WORD, 625), Maybe(FLOAT)),
    "numpy": (Choice(("MT19937",)), Listed(_WORD, 624), Number(0, 624, integer=True), Choice((0, 1)), FLOAT),
}


@dataclass
class Position:
    """Where a run is: the next step, and the figures of each step since the last record."""

    next_step: int = 0
    since_record: dict[str, list[float]] = field(default_factory=dict)


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
    save_model(path, contents | {"names": _names(contents)})


def _names(contents: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the algorithm, and of each parameter in its optimizers: kept as well, so that nothing is lost."""
    return {"algorithm": list(contents["algorithm"])} | {
        f"optimizers.{name}": {str(index): list(map(str, kept)) for index, kept in one["state"].items()}
        for name, one in contents["optimizers"].items()
    }


def load_position(path: Path, run: Setup) -> Position:
    """Put a run, fresh from ``set_up``, into the state that :func:`save_position` kept; return where it is.

    Raises:
        UserError: the file is no checkpoint, or one of another run; the message names what differs. The run is then
            of no more use.
    """
    contents = load_plain(path, ("identity", "position", "algorithm", "optimizers", "random", "names"), _ADVICE)
    wrong = fault(contents["identity"], Named(PLAIN), "identity")
    unlike = None if wrong else differences(contents["identity"], run_identity(run))
    if unlike:
        raise UserError(f"{path} is a checkpoint of another run: {unlike}. Give another --output_dir, or --restart")
    spec = {
        "position": {"next_step": Number(0, run.n_steps, integer=True), "since_record": Named(Listed(FLOAT))},
        "algorithm": WEIGHTS,
        "optimizers": {name: {"state": DICT, "param_groups": Listed(DICT)} for name in _optimizers(run.algorithm)},
        "random": _RANDOM,
        "names": PLAIN,
    }
    wrong = wrong or fault(contents, spec) or _load(contents, run)
    if wrong:
        raise UserError(f"{path} does not fit this run: {wrong}; {_ADVICE}")
    return Position(contents["position"]["next_step"], contents["position"]["since_record"])


def _load(contents: Mapping[str, Any], run: Setup) -> str | None:
    """Load the state; say why it cannot be, None where it is."""
    optimizers = _optimizers(run.algorithm)
    wrong = weights_fault(run.algorithm, contents["algorithm"])
    for name, optimizer in optimizers.items():
        wrong = wrong or optimizer_fault(optimizer, contents["optimizers"][name], f"optimizers.{name}")
    if wrong or contents["optimizers"].keys() != optimizers.keys() or contents["names"] != _names(contents):
        return wrong or "tensors are lost, or there are too many"
    try:
        run.algorithm.load_state_dict(contents["algorithm"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(contents["optimizers"][name])
        _restore_random(contents["random"], run.device)
    except Exception as error:  # what a stranger's values make torch raise is open-ended
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    params = [param for one in optimizers.values() for group in one.param_groups for param in group["params"]]
    n_samples = sum(map(len, run.dataset.datasets))
    return step_state_fault(run.algorithm, params, n_samples)


def _restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def _optimizers(algorithm: Any) -> dict[str, torch.optim.Optimizer]:
    return {name: value for name, value in vars(algorithm).items() if isinstance(value, torch.optim.Optimizer)}
