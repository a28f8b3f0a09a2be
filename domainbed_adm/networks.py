"""What is trained: a featurizer chosen by input shape as DomainBed does, or any timm model, and a classifier on top."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbed_adm.errors import UserError


class Featurizer(nn.Module):
    """Features of an input, shape (B, n_outputs): a backbone, then dropout.

    ====================  ==================================================================================
    hparam ``backbone``   that timm model
    28 px                 :func:`small_cnn`, GroupNorm
    32 px                 :func:`wide_resnet`, WRN-16-2
    else                  torchvision's ResNet-50, ``resnet18`` ResNet-18, ImageNet weights V1 if ``pretrained``
    ====================  ==================================================================================

    With ``freeze_bn`` every BatchNorm stays in evaluation mode, whatever ``train()`` says: it normalises with its
    stored statistics, which do not move; its scale and shift are trained.

    Args:
        input_shape: (channels, height, width).
        hparams: read with the registry's defaults where a name is missing.

    Attributes:
        n_outputs: number of features.

    Raises:
        UserError: weights cannot be fetched, timm is needed and missing, or has no such model.
    """

    n_outputs: int

    def __init__(self, input_shape: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__()
        self.freeze_bn = bool(hparams.get("freeze_bn", False))
        size = tuple(input_shape[1:])
        if hparams.get("backbone"):
            self.network, self.n_outputs = timm_model(hparams["backbone"], input_shape[0], hparams)
        elif size == (28, 28):
            self.network, self.n_outputs = small_cnn(input_shape[0], hparams.get("cnn_width", 64))
        elif size == (32, 32):
            self.network, self.n_outputs = wide_resnet(input_shape[0])
        else:
            self.network, self.n_outputs = resnet(input_shape[0], hparams)
        self.dropout = nn.Dropout(hparams.get("resnet_dropout", 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (B, n_outputs)."""
        return self.dropout(self.network(x))

    def train(self, mode: bool = True) -> Featurizer:
        """As ``nn.Module.train``, with BatchNorm kept frozen where ``freeze_bn`` says so."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def Classifier(in_features: int, out_features: int, is_nonlinear: bool = False) -> nn.Module:  # noqa: N802
    """DomainBed's classifier: one linear layer, or three that halve the width, with ReLU between."""
    if not is_nonlinear:
        return nn.Linear(in_features, out_features)
    half, quarter = in_features // 2, in_features // 4
    return nn.Sequential(
        nn.Linear(in_features, half), nn.ReLU(), nn.Linear(half, quarter), nn.ReLU(), nn.Linear(quarter, out_features)
    )


def small_cnn(channels: int, width: int) -> tuple[nn.Module, int]:
    """DomainBed's network for 28 px: four 3x3 convolutions, each ReLU then GroupNorm(8); then the mean over pixels."""
    plan = [(channels, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 2 * width, 1)]
    layers: list[nn.Module] = []
    for wide_in, wide_out, stride in plan:
        layers += [nn.Conv2d(wide_in, wide_out, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(8, wide_out)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2 * width


class _PreActivation(nn.Module):
    """A wide residual block: BatchNorm, ReLU, convolution, twice, beside a shortcut."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(wide_in),
            nn.ReLU(),
            nn.Conv2d(wide_in, wide_out, 3, padding=1),
            nn.BatchNorm2d(wide_out),
            nn.ReLU(),
            nn.Conv2d(wide_out, wide_out, 3, stride, padding=1),
        )
        same = stride == 1 and wide_in == wide_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(wide_in, wide_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


def wide_resnet(channels: int, depth: int = 16, widen: int = 2) -> tuple[nn.Module, int]:
    """Wide-ResNet of Zagoruyko and Komodakis (BMVC 2016), for 32 px: depth 6 n + 4, three groups of n blocks."""
    blocks = (depth - 4) // 6
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1)]
    wide_in = 16
    for group in range(3):
        wide_out = 16 * widen * 2**group
        for block in range(blocks):
            layers.append(_PreActivation(wide_in, wide_out, 2 if group and not block else 1))
            wide_in = wide_out
    return nn.Sequential(*layers, nn.BatchNorm2d(wide_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), wide_in


def resnet(channels: int, hparams: dict[str, Any]) -> tuple[nn.Module, int]:
    """Torchvision's ResNet-18 or -50 without its classifier; ImageNet weights V1 where ``pretrained``."""
    from torchvision import models  # takes a second, and only these networks need it

    if hparams.get("resnet18", False):
        build, weights = models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1
    else:
        build, weights = models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1
    chosen = weights if hparams.get("pretrained", True) else None
    file = weights.url.rsplit("/", 1)[1]
    network = _fetched(lambda: build(weights=chosen), f"put {file} into {torch.hub.get_dir()}/checkpoints")
    if channels != 3:
        network.conv1 = _with_channels(network.conv1, channels)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return network, features


def _with_channels(convolution: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The same first layer for another number of channels, its kernels for them taken in turn from the old ones."""
    kernels = convolution.weight[:, [i % convolution.in_channels for i in range(channels)]]
    convolution.in_channels = channels
    convolution.weight = nn.Parameter(kernels.detach().clone())
    return convolution


def timm_model(name: str, channels: int, hparams: dict[str, Any]) -> tuple[nn.Module, int]:
    """A timm model without its classifier, its pretrained weights where ``pretrained``.

    Raises:
        UserError: timm is not installed or has no such model; the message says what to do.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"hparam backbone {name!r} needs timm: pip install 'domainbed-adm[backbones]'") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise UserError(f"timm has no model {name!r}; near: {', '.join(near) or 'none'} (see timm.list_models())")
    network = _fetched(
        lambda: timm.create_model(name, pretrained=hparams.get("pretrained", True), num_classes=0, in_chans=channels),
        f"fetch {name} once where there is a network and copy Hugging Face's cache folder (HF_HOME)",
    )
    return network, network.num_features


def _fetched(build: Callable[[], Any], remedy: str) -> Any:
    """Build a network whose weights may have to be downloaded.

    Raises:
        UserError: they cannot be; the message says how to go on offline.
    """
    try:
        return build()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot fetch pretrained weights ({str(error).splitlines()[0]}): {remedy}, or train from scratch with "
            "--hparams '{\"pretrained\": false}'"
        ) from error
