"""``model.pkl``: DomainBed's keys, and what ``predict`` needs; plain values and tensors, so that no code is loaded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.errors import UserError


def save_model(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` to ``path``, whole or not at all: to a file beside it, synced, then renamed."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        torch.save(contents, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_model(path: Path) -> dict[str, Any]:
    """Read what :func:`save_model` wrote, tensors to the CPU, executing nothing from the file.

    Raises:
        UserError: there is no such file, or it is none of ours.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: --model is the model.pkl in the output_dir of a finished run")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no model that domainbed-adm saved: {str(error).splitlines()[0]}") from error
    needed = {"args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict"}
    if not isinstance(contents, dict) or not needed <= contents.keys():
        raise UserError(f"{path} is no model that domainbed-adm saved: it lacks {', '.join(sorted(needed))}")
    return contents


def restore_algorithm(contents: dict[str, Any]) -> Any:
    """Rebuild the trained algorithm, in evaluation mode.

    Raises:
        UserError: its algorithm is unknown, or its weights do not fit it.
    """
    hparams = {**contents["model_hparams"], "pretrained": False}
    algorithm = get_algorithm_class(contents["args"]["algorithm"])(
        contents["model_input_shape"], contents["model_num_classes"], contents["model_num_domains"], hparams
    )
    try:
        algorithm.load_state_dict(contents["model_dict"])
    except RuntimeError as error:
        raise UserError(f"the weights do not fit {contents['args']['algorithm']}: {error}") from error
    return algorithm.eval()
