"""``model.pkl``: DomainBed's keys, and what ``predict`` needs; plain values and tensors, so that no code is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.disk import replacing
from domainbed_adm.errors import UserError

MODEL_KEYS = ("args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict")


def save_model(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` to ``path``, whole or not at all.

    Raises:
        UserError: the system refuses; an older file is as it was.
    """
    with replacing(path) as file:
        torch.save(contents, file)


def load_model(path: Path) -> dict[str, Any]:
    """Read a ``model.pkl``, tensors to the CPU, executing nothing from the file.

    Raises:
        UserError: there is no such file, or it is none of ours.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: --model is the model.pkl in the output_dir of a finished run")
    return load_plain(path, MODEL_KEYS)


def load_plain(path: Path, needed: Sequence[str]) -> dict[str, Any]:
    """Read what :func:`save_model` wrote, tensors to the CPU, executing nothing from the file.

    Raises:
        UserError: it is damaged, wants to run code, or lacks one of the ``needed`` keys.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what bytes of a stranger make torch raise is open-ended; its text may advise to load
        # them all the same, code and all, so it is not told
        raise UserError(
            f"{path} is no file that domainbed-adm saved: it is damaged, or holds more than tensors and plain values"
        ) from error
    missing = [key for key in needed if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise UserError(f"{path} is no file that domainbed-adm saved: it lacks {', '.join(missing)}")
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
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights do not fit {contents['args']['algorithm']}: {reason}") from error
    return algorithm.eval()
