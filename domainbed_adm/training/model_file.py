"""``model.pkl``: DomainBed's keys, and what ``predict`` needs; plain values and tensors, so that no code is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.errors import UserError, one_line
from domainbed_adm.hparams_registry import every_hparam
from domainbed_adm.system.disk import replacing
from domainbed_adm.training import domainbed_model

_KEYS = ("args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict")
#: What random hparams of DomainBed are made of: NumPy's numbers, which ``weights_only`` refuses without these.
_NUMPY_NUMBERS = [
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.int64, np.bool_)),
]


def save_model(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` to ``path``, whole or not at all.

    Raises:
        UserError: the system refuses; an older file is as it was.
    """
    with replacing(path) as file:
        torch.save(contents, file)


def load_model(path: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Read a ``model.pkl``, ours or DomainBed's, tensors to the CPU, executing nothing from the file.

    Args:
        path: the file.
        mapped: whether tensors stay on the disk until they are used, where the file's form lets them.

    Returns:
        DomainBed's keys, and ``classes`` and ``normalization``, None where they are not known, and ``path``; hparams
        that the file lacks have their defaults.

    Raises:
        UserError: there is no such file, or it is no model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: --model is the model.pkl in the output_dir of a finished run")
    contents = load_tensors(path, _KEYS, mapped=mapped)
    if "classes" not in contents:
        contents = domainbed_model.as_ours(contents)
    defaults = {name: hparam.default for name, hparam in every_hparam().items()}
    return contents | {"path": str(path), "model_hparams": defaults | contents["model_hparams"]}


def load_tensors(path: Path, needed: Sequence[str], advice: str = "", mapped: bool = False) -> dict[str, Any]:
    """Read a dict of tensors and plain values that ``torch.save`` wrote, executing nothing from the file.

    Args:
        path: the file.
        needed: keys that it must have.
        advice: what to do where it cannot be read, for the message.
        mapped: as of :func:`load_model`.

    Returns:
        The dict, its tensors on the CPU.

    Raises:
        UserError: the file is damaged, wants to run code, or lacks a key.
    """
    fault = None
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zipfile(path))
    except Exception:  # torch raises many types for damaged bytes, and its text advises to run the code
        contents, fault = {}, "is damaged, or holds more than tensors and plain values"
    missing = [key for key in needed if not isinstance(contents, dict) or key not in contents]
    if fault or missing:
        fault = fault or f"lacks {', '.join(missing)}"
        raise UserError(f"{path} is no file that domainbed-adm saved: it {fault}{f'; {advice}' if advice else ''}")
    return dict(contents)


def restore_algorithm(contents: dict[str, Any]) -> Any:
    """Rebuild the trained algorithm, in evaluation mode.

    Args:
        contents: from :func:`load_model`.

    Raises:
        UserError: its algorithm is unknown, cannot be made, or has tensors of other names or shapes than the file; the
            message names them.
    """
    path, name = contents["path"], contents["args"]["algorithm"]
    try:
        algorithm = get_algorithm_class(name)(
            contents["model_input_shape"],
            contents["model_num_classes"],
            contents["model_num_domains"],
            {**contents["model_hparams"], "pretrained": False},
        )
        algorithm.load_state_dict(contents["model_dict"])
    except (UserError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: cannot make {name} with these weights: {one_line(error)}") from error
    return algorithm.eval()
