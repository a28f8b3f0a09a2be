"""``model.pkl``: DomainBed's keys, and what ``predict`` needs; plain values and tensors, so that no code is loaded.

Models that DomainBed's own train script saved, ``domainbed-adm upstream train`` too, are read as ours. Its small
networks are ours layer for layer, but name their layers otherwise; its ResNets have torchvision's names, as ours do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.datasets.cards import IMAGENET
from domainbed_adm.errors import UserError, one_line
from domainbed_adm.hparams_registry import every_hparam
from domainbed_adm.registry import get_method
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.process import ENDING, held_back
from domainbed_adm.upstream.hosted import checkout_of, without_pretrained
from domainbed_adm.upstream.methods import HostMethod

_KEYS = ("args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict")
#: What random hparams of DomainBed are made of: NumPy's numbers, which ``weights_only`` refuses without these.
_NUMPY_NUMBERS = [np.float64(0).__reduce__()[0], np.dtype, *(type(np.dtype(kind)) for kind in (float, int, bool))]
#: Our names of the layers of DomainBed's network for 28 px: a convolution, ReLU and GroupNorm each.
_CNN = {f"conv{i + 1}": str(3 * i) for i in range(4)} | {f"bn{i}": str(3 * i + 2) for i in range(4)}
_BLOCK = {"bn1": "residual.0", "conv1": "residual.2", "bn2": "residual.3", "conv2": "residual.5"}
#: And of its network for 32 px: three groups of two blocks.
_WIDE_RESNET = {"conv1": "0", "bn1": "7"} | {
    f"layer{i // 2 + 1}.{i % 2}.{theirs}": f"{i + 1}.{ours}"
    for i in range(6)
    for theirs, ours in {**_BLOCK, "shortcut.0": "shortcut"}.items()
}


def save_model(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` to ``path``, whole or not at all; who interrupts waits for it."""
    with held_back(*ENDING), replacing(path) as file:  # interrupted, torch ends in an error of its own
        torch.save(contents, file)


def read_model(path: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Read a ``model.pkl``, ours or DomainBed's, tensors to the CPU, executing nothing from the file.

    With ``mapped``, tensors stay on the disk until they are used, where the file's form lets them. The dict has
    DomainBed's keys, and ``classes`` and ``normalization``, None where they are not known, and ``path``; hparams that
    the file lacks have their defaults.

    Raises:
        UserError: there is no such file, or it is no model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: --model is the model.pkl in the output_dir of a finished run")
    contents = load_tensors(path, _KEYS, mapped=mapped)
    if "classes" not in contents:
        contents = _as_ours(contents)
    defaults = {name: hparam.default for name, hparam in every_hparam().items()}
    return contents | {"path": str(path), "model_hparams": defaults | contents["model_hparams"]}


def load_tensors(path: Path, needed: Sequence[str], advice: str = "", mapped: bool = False) -> dict[str, Any]:
    """Read a dict of tensors and plain values that ``torch.save`` wrote, executing nothing from the file.

    Raises:
        UserError: the file is damaged, wants to run code, or lacks a key that is ``needed``; the message ends with the
            ``advice``.
    """
    fault = None
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _can_be_mapped(path))
    except Exception:  # torch raises many types for damaged bytes, and its text advises to run the code
        contents, fault = {}, "is damaged, or holds more than tensors and plain values"
    missing = [key for key in needed if not isinstance(contents, dict) or key not in contents]
    if fault or missing:
        fault = fault or f"lacks {', '.join(missing)}"
        raise UserError(f"{path} is no file that domainbed-adm saved: it {fault}{f'; {advice}' if advice else ''}")
    return dict(contents)


def _can_be_mapped(path: Path) -> bool:
    try:
        str(path).encode()  # torch knows no other names
    except UnicodeEncodeError:
        return False
    return is_zipfile(path)


def _as_ours(contents: dict[str, Any]) -> dict[str, Any]:
    hparams, shape = contents["model_hparams"], tuple(contents["model_input_shape"])
    theirs = isinstance(get_method(contents["args"]["algorithm"]), HostMethod)
    others = [name for name in ("vit", "dinov2") if hparams.get(name)]
    if others and not theirs:
        raise UserError(
            f"this model has a network of DomainBed's that domainbed-adm does not have (hparam {others[0]}): only "
            "DomainBed's own code can use it"
        )
    weights = contents["model_dict"]
    # DomainBed normalises each dataset of image files by ImageNet's mean and deviation, and no other.
    from_files = shape == (3, 224, 224) and not contents["args"].get("dataset", "").startswith("Debug")
    return {
        **contents,
        "classes": None,
        "normalization": [list(IMAGENET.mean), list(IMAGENET.std)] if from_files else None,
        "model_dict": weights if theirs else _renamed(weights, {28: _CNN, 32: _WIDE_RESNET}.get(shape[1], {})),
    }


def _renamed(weights: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """DomainBed's featurizer has the layers itself, ours has a network that has them."""
    renamed = {}
    for name, value in weights.items():
        root = next((root for root in ("featurizer.", "network.0.") if name.startswith(root)), None)
        layer, _, tensor = name.removeprefix(root or "").rpartition(".")
        renamed[f"{root}network.{layers[layer]}.{tensor}" if root and layer in layers else name] = value
    return renamed


def restore_algorithm(contents: dict[str, Any]) -> Any:
    """Rebuild the trained algorithm of :func:`read_model`'s contents, in evaluation mode.

    Raises:
        UserError: its algorithm is unknown, cannot be made, or has tensors of other names or shapes than the file; the
            message names them.
    """
    path, name = contents["path"], contents["args"]["algorithm"]
    hparams = contents["model_hparams"] | {"pretrained": False}
    sizes = [contents[f"model_{key}"] for key in ("input_shape", "num_classes", "num_domains")]
    try:
        make = get_algorithm_class(name)
        with without_pretrained(make):
            algorithm = make(*sizes, hparams)
        weights = contents["model_dict"]
        if checkout_of(make):
            weights = _fitting(algorithm, weights)
        algorithm.load_state_dict(weights)
    except (UserError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: cannot make {name} with these weights: {one_line(error)}") from error
    algorithm.eval()  # which of DomainBed's algorithms does not always return it
    return algorithm


def _fitting(algorithm: torch.nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of an algorithm of DomainBed's, what a new one can load of one that has trained.

    Its buffers grow (GroupDRO's weights of domains), and a step may leave modules that the next one makes anew (Fish).
    """
    for name, buffer in list(algorithm.named_buffers()):
        if name in weights and weights[name].shape != buffer.shape:
            module, _, last = name.rpartition(".")
            setattr(algorithm.get_submodule(module), last, torch.empty_like(weights[name]))
    parts = {name.partition(".")[0] for name in algorithm.state_dict()}
    return {name: value for name, value in weights.items() if name.partition(".")[0] in parts}
