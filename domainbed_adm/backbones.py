"""Feature extractors with ImageNet weights: torchvision's ResNets, and any timm model."""

from __future__ import annotations

import difflib
import logging
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet, get_model, get_model_weights

from domainbed_adm.errors import UserError

_SCRATCH = "or give --hparams '{\"pretrained\": false}' to train from scratch"
_BROKEN_FILE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError)


def resnet(name: str, channels: int, pretrained: bool) -> ResNet:
    """Return a torchvision ResNet without its last layer.

    Args:
        name: "resnet18" or "resnet50"; its features are 512 or 2048 wide.
        channels: of the input. One grey channel gets the sum of the three pretrained kernels, which is the network
            seeing a grey image in three equal channels; other numbers get the kernels in turn, as in DomainBed.
        pretrained: start from the weights IMAGENET1K_V1, else from torchvision's random ones.

    Raises:
        UserError: the weights can neither be found on disk nor fetched.
    """
    network: ResNet = get_model(name, weights=None)
    if pretrained:
        network.load_state_dict(_imagenet_weights(name))
    network.fc = nn.Identity()
    if channels != 3:
        network.conv1 = _input_layer(network.conv1, channels)
    return network


def _imagenet_weights(name: str) -> dict[str, Any]:
    """Read torchvision's weights IMAGENET1K_V1 from the disk, or fetch them.

    Raises:
        UserError: neither worked; the message says which file to put where.
    """
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except _BROKEN_FILE as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"no ImageNet weights for {name} ({_one_line(error)}): put {Path(weights.url).name} of {weights.url} "
            f"in {folder}, {_SCRATCH}"
        ) from error


def _input_layer(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    new = nn.Conv2d(channels, old.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
    kernel = old.weight.detach()
    adapted = kernel.sum(1, keepdim=True) if channels == 1 else kernel[:, torch.arange(channels) % 3]
    new.weight = nn.Parameter(adapted)
    return new


def timm_model(name: str, channels: int, pretrained: bool) -> nn.Module:
    """Return a timm model without its classifier: images in, one feature vector each out.

    Inputs are normalised as the dataset states (ImageNet's mean and std for folders), whatever the model was
    pretrained with.

    Args:
        name: as timm's ``create_model`` takes it, with or without a weight tag ("resnet18.a1_in1k").
        channels: of the input; timm adapts the pretrained kernel.
        pretrained: start from timm's weights.

    Raises:
        UserError: timm is not installed, has no such model, or cannot fetch or read its weights.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = (
            f"nearest: {', '.join(near)}" if near else "python -c 'import timm; print(timm.list_models())' lists them"
        )
        raise UserError(f"unknown backbone {name!r}: timm has no such model; {hint}")
    # The hub tries again and again, and says so in a line each time; our one line says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
    except Exception as error:  # timm, huggingface_hub and their HTTP client each raise their own
        raise UserError(
            f"cannot make backbone {name!r} ({_one_line(error)}){_advice(timm, name, pretrained)}"
        ) from error


def _timm() -> ModuleType:
    """Import timm, which is optional.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("hparam backbone needs timm: pip install timm") from error
    return timm


def _advice(timm: ModuleType, name: str, pretrained: bool) -> str:
    if not pretrained:
        return ""
    try:
        source = timm.get_pretrained_cfg(name).hf_hub_id
    except RuntimeError:
        source = None
    cached = f"put {source} of huggingface.co in the Hugging Face cache (HF_HOME), " if source else ""
    return f": {cached}{_SCRATCH}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
