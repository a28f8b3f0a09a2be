"""What a run trains and how, in words, from its hparams. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domainbed_adm.datasets.cards import FOLDERS, get_card
from domainbed_adm.recorded_run import Run

#: The base optimizers as tables name them.
BASE_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
_OWN_BACKBONES = {"cifar_resnet18": "ResNet-18 for 32 px", "wrn_28_10": "WRN-28-10", "wrn_16_8": "WRN-16-8"}


def image_size(dataset: str, hparams: Mapping[str, Any]) -> int:
    """Pixels a side of what the network sees."""
    card = get_card(dataset)
    chosen = card.path == FOLDERS or card.recipe == "fine_grained"
    return int(hparams.get("image_size", card.input_shape[-1])) if chosen else card.input_shape[-1]


def architecture(dataset: str, hparams: Mapping[str, Any]) -> str:
    """The network that ``networks.Featurizer`` makes: "ResNet-18, 224 px"."""
    size, backbone = image_size(dataset, hparams), hparams.get("backbone")
    if backbone in _OWN_BACKBONES:
        return _OWN_BACKBONES[backbone]
    if not backbone and size == 28:
        return f"CNN of width {hparams.get('cnn_width', 64)}, 28 px"
    if not backbone and size == 32:
        return "WRN-16-2"
    name = backbone or ("ResNet-18" if hparams.get("resnet18") else "ResNet-50")
    return f"{name}, {size} px"


def network(dataset: str, hparams: Mapping[str, Any]) -> str:
    """The same, and where that is a choice what it starts from: "ResNet-18, 224 px, from scratch"."""
    weights = "ImageNet weights" if hparams.get("pretrained", True) else "from scratch"
    chosen = image_size(dataset, hparams) > 32 and hparams.get("backbone") not in _OWN_BACKBONES
    return f"{architecture(dataset, hparams)}{f', {weights}' * chosen}"


def base_optimizer(runs: Iterable[Run]) -> str:
    """The optimizer below the flatness part, of all runs; Adam where they do not say, as DomainBed's."""
    names = dict.fromkeys(str(run.hparams.get("optimizer", "adam")) for run in runs)
    return " or ".join(BASE_OPTIMIZERS.get(name, name) for name in names) or "Adam"


def epochs(run: Run) -> int | None:
    """How many epochs it trains, where its length is in epochs."""
    return None if run.args.get("steps") else run.epochs or get_card(run.dataset).n_epochs


def recipe(runs: Iterable[Run]) -> str:
    """Network, optimizer, batch and length of the runs, in a sentence; "or" where they differ."""
    runs = [run for run in runs if run.hparams]
    if not runs:
        return ""
    told: dict[str, list[Any]] = {
        "": [network(run.dataset, run.hparams) for run in runs],
        "optimizer": [base_optimizer([run]) for run in runs],
        "lr": [f"{run.hparams.get('lr')}, {run.hparams.get('lr_schedule', 'constant')}" for run in runs],
        "weight decay": [run.hparams.get("weight_decay") for run in runs],
        "batch": [run.hparams.get("batch_size") for run in runs],
        "length": [_length(run) for run in runs],
    }
    parts = (f"{name} {' or '.join(dict.fromkeys(map(str, values)))}".strip() for name, values in told.items())
    return f"Trained: {'; '.join(parts)}."


def _length(run: Run) -> str:
    if (count := epochs(run)) is not None:
        return f"{count} epochs"
    return "as the dataset says" if run.end_step is None else f"{run.end_step + 1} steps"
