"""Models that DomainBed's own train script saved, ``domainbed-adm upstream train`` too, as our networks read them.

Its small networks are ours layer for layer, but name their layers otherwise; its ResNets have torchvision's names, as
ours do. Its files state neither the classes nor the normalization: DomainBed normalises each dataset of image files by
ImageNet's mean and deviation, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from domainbed_adm.datasets.cards import IMAGENET
from domainbed_adm.errors import UserError

#: Our names of the layers of DomainBed's network for 28 px: a convolution, ReLU and GroupNorm each.
_CNN = {f"conv{i + 1}": str(3 * i) for i in range(4)} | {f"bn{i}": str(3 * i + 2) for i in range(4)}
_BLOCK = {"bn1": "residual.0", "conv1": "residual.2", "bn2": "residual.3", "conv2": "residual.5"}
#: And of its network for 32 px: three groups of two blocks.
_WIDE_RESNET = {"conv1": "0", "bn1": "7"} | {
    f"layer{i // 2 + 1}.{i % 2}.{theirs}": f"{i + 1}.{ours}"
    for i in range(6)
    for theirs, ours in {**_BLOCK, "shortcut.0": "shortcut"}.items()
}


def as_ours(contents: Mapping[str, Any]) -> dict[str, Any]:
    """A model of DomainBed's with our names of its tensors, and what its file does not state.

    Args:
        contents: what DomainBed's train script saved.

    Returns:
        The same with ``classes`` None and ``normalization`` as DomainBed normalises such inputs.

    Raises:
        UserError: it has a network that this package does not have.
    """
    hparams, shape = contents["model_hparams"], tuple(contents["model_input_shape"])
    others = [name for name in ("vit", "dinov2") if hparams.get(name)]
    if others:
        raise UserError(
            f"this model has a network of DomainBed's that domainbed-adm does not have (hparam {others[0]}): only "
            "DomainBed's own code can use it"
        )
    from_files = shape == (3, 224, 224) and not contents["args"].get("dataset", "").startswith("Debug")
    return {
        **contents,
        "classes": None,
        "normalization": [list(IMAGENET.mean), list(IMAGENET.std)] if from_files else None,
        "model_dict": _renamed(contents["model_dict"], {28: _CNN, 32: _WIDE_RESNET}.get(shape[1], {})),
    }


def _renamed(weights: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """DomainBed's featurizer has the layers itself, ours has a network that has them."""
    renamed = {}
    for name, value in weights.items():
        root = next((root for root in ("featurizer.", "network.0.") if name.startswith(root)), None)
        layer, _, tensor = name.removeprefix(root or "").rpartition(".")
        renamed[f"{root}network.{layers[layer]}.{tensor}" if root and layer in layers else name] = value
    return renamed
