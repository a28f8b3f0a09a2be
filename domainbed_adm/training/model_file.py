"""``model.pkl``: DomainBed's keys, and what ``predict`` needs; plain values and tensors, so that no code is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import POSITIVE, Choice, Number, every_hparam
from domainbed_adm.system.disk import replacing
from domainbed_adm.training.archive import check_archive
from domainbed_adm.training.schema import PLAIN, TEXT, WEIGHTS, Listed, Maybe, Named, Spec, fault

_COUNT, _PIXELS = Number(1, 10**6, integer=True), Number(1, 1024, integer=True)
_MODEL = {
    "args": {"algorithm": TEXT},
    "model_input_shape": (_COUNT, _PIXELS, _PIXELS),
    "model_num_classes": _COUNT,
    "model_num_domains": _COUNT,
    "model_hparams": Named(PLAIN),
    "model_dict": WEIGHTS,
}


def save_model(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` to ``path``, whole or not at all.

    Raises:
        UserError: the system refuses; an older file is as it was.
    """
    with replacing(path) as file:
        torch.save(contents, file)


def load_model(path: Path) -> dict[str, Any]:
    """Read a ``model.pkl``, tensors to the CPU, executing nothing from the file.

    Its weights are held against the network that it describes, made without numbers: sizes that are not those of the
    weights cost no memory.

    Returns:
        DomainBed's keys, and ``classes`` and ``normalization``, None where the file has none; hparams that it lacks
        have their defaults.

    Raises:
        UserError: there is no such file, it is none of ours, its algorithm is unknown, or its weights do not fit.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: --model is the model.pkl in the output_dir of a finished run")
    contents = {"classes": None, "normalization": None, **load_plain(path, tuple(_MODEL))}
    wrong = fault(contents, _MODEL) or fault(contents, _details(contents))
    if wrong:
        raise UserError(f"{path} is no file that domainbed-adm saved: {wrong}")
    defaults = {name: hparam.default for name, hparam in every_hparam().items()}
    contents["model_hparams"] = defaults | contents["model_hparams"]
    try:
        with torch.device("meta"):
            shapes = _build(contents)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception:  # of another's algorithm, which may need numbers: restore_algorithm builds it with them
        return contents
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no numbers are copied
        _load(shapes, contents, f"{path}: ")
    return contents


def _details(contents: dict[str, Any]) -> Spec:
    """What must stand in a model whose sizes are these; hparams that only DomainBed's own networks read may be any."""
    channels = contents["model_input_shape"][0]
    deviations = Listed(POSITIVE, channels)
    specs = [spec for spec in every_hparam().values() if spec.valid not in (None, Choice((spec.default,)))]
    valid = {spec.name: spec.valid for spec in specs} | {"input_std": Maybe(deviations)}
    return {
        "classes": Maybe(Listed(TEXT, contents["model_num_classes"])),
        "normalization": Maybe((Listed(Number(), channels), deviations)),
        "model_hparams": {name: valid[name] for name in contents["model_hparams"] if name in valid},
    }


def load_plain(path: Path, needed: Sequence[str], advice: str | None = None) -> dict[str, Any]:
    """Read what :func:`save_model` wrote, tensors to the CPU, executing nothing from the file, nor unpacking it.

    Raises:
        UserError: it is damaged, wants to run code, or lacks one of the ``needed`` keys; ``advice`` says what to do.
    """
    end = f"; {advice}" if advice else ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_archive(path)
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what bytes of a stranger make torch raise is open-ended; its text may advise to load
        # them all the same, code and all, so it is not told
        raise UserError(
            f"{path} is no file that domainbed-adm saved: it is damaged, or holds more than tensors and plain values"
            + end
        ) from error
    missing = [key for key in needed if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise UserError(f"{path} is no file that domainbed-adm saved: it lacks {', '.join(missing)}{end}")
    return contents


def restore_algorithm(contents: dict[str, Any]) -> Any:
    """Rebuild the trained algorithm, in evaluation mode.

    Raises:
        UserError: its algorithm is unknown, cannot be made, or its weights do not fit it.
    """
    try:
        algorithm = _build(contents)
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"cannot make {contents['args']['algorithm']}: {_one_line(error)}") from error
    _load(algorithm, contents)
    return algorithm.eval()


def _build(contents: dict[str, Any]) -> Any:
    return get_algorithm_class(contents["args"]["algorithm"])(
        contents["model_input_shape"],
        contents["model_num_classes"],
        contents["model_num_domains"],
        {**contents["model_hparams"], "pretrained": False},
    )


def _load(algorithm: Any, contents: dict[str, Any], where: str = "") -> None:
    """Load the weights.

    Raises:
        UserError: they do not fit.
    """
    weights, name = contents["model_dict"], contents["args"]["algorithm"]
    for key, own in [*algorithm.named_parameters(), *algorithm.named_buffers()]:
        if key in weights and weights[key].is_floating_point() != own.is_floating_point():  # torch would convert it
            raise UserError(f"{where}the weights do not fit {name}: {key} is of {weights[key].dtype}, not {own.dtype}")
    try:
        algorithm.load_state_dict(weights)
    except Exception as error:  # what a stranger's values make torch raise is open-ended
        raise UserError(f"{where}the weights do not fit {name}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
