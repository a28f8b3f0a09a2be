"""Models that DomainBed's own train script saved, ``domainbed-adm upstream train`` too, as our networks read them.

Its small networks are ours layer for layer, but name their layers otherwise; its ResNets have torchvision's names, as
ours do. Its files state neither the classes nor the normalization: DomainBed normalises each dataset of image files by
ImageNet's mean and deviation, and no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from domainbed_adm.datasets.cards import IMAGENET
from domainbed_adm.errors import UserError

#: Hparams that choose a network which this package does not have.
_OTHER_NETWORKS = ("vit", "dinov2")
_IMAGE_FILES = (3, 224, 224)
#: Layers of the network for 28 px, a convolution, ReLU and GroupNorm each; and of a block of the network for 32 px.
_CNN = {f"conv{i + 1}": str(3 * i) for i in range(4)} | {f"bn{i}": str(3 * i + 2) for i in range(4)}
_BLOCK = {
    "bn1": "residual.0",
    "conv1": "residual.2",
    "bn2": "residual.3",
    "conv2": "residual.5",
    "shortcut.0": "shortcut",
}
_BLOCKS_PER_GROUP, _BLOCKS = 2, 6


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
    others = [name for name in _OTHER_NETWORKS if hparams.get(name)]
    if others:
        raise UserError(
            f"this model has a network of DomainBed's that domainbed-adm does not have (hparam {others[0]}): only "
            "DomainBed's own code can use it"
        )
    from_files = shape == _IMAGE_FILES and not contents["args"].get("dataset", "").startswith("Debug")
    return {
        **contents,
        "classes": None,
        "normalization": [list(IMAGENET.mean), list(IMAGENET.std)] if from_files else None,
        "model_dict": _renamed(contents["model_dict"], shape[1]),
    }


def _renamed(weights: Mapping[str, Tensor], pixels: int) -> dict[str, Tensor]:
    table = _CNN if pixels == 28 else _wide_resnet() if pixels == 32 else {}
    # DomainBed's featurizer has the layers itself, ours has a network that has them
    layer = re.compile(rf"(featurizer|network\.0)\.({'|'.join(map(re.escape, table))})\.(\w+)") if table else None

    def renamed(name: str) -> str:
        match = layer.fullmatch(name) if layer else None
        return f"{match[1]}.network.{table[match[2]]}.{match[3]}" if match else name

    return {renamed(name): value for name, value in weights.items()}


def _wide_resnet() -> dict[str, str]:
    blocks = {
        f"layer{i // _BLOCKS_PER_GROUP + 1}.{i % _BLOCKS_PER_GROUP}.{theirs}": f"{i + 1}.{ours}"
        for i in range(_BLOCKS)
        for theirs, ours in _BLOCK.items()
    }
    return {"conv1": "0", "bn1": str(_BLOCKS + 1), **blocks}
