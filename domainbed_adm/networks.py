"""What is trained: a featurizer chosen by input shape as DomainBed does, or any timm model, and a classifier on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbed_adm.backbones import resnet, timm_model
from domainbed_adm.errors import UserError


class Featurizer(nn.Module):
    """Features of an input, shape (B, n_outputs): a backbone, then dropout.

    ====================  ==================================================================================
    hparam ``backbone``   that timm model
    28 px                 :func:`small_cnn`, GroupNorm
    32 px                 :func:`wide_resnet`, WRN-16-2
    larger                torchvision's ResNet-50, ``resnet18`` ResNet-18, ImageNet weights V1 if ``pretrained``
    ====================  ==================================================================================

    With ``freeze_bn`` every BatchNorm stays in evaluation mode, whatever ``train()`` says: it normalises with its
    stored statistics, which do not move; its scale and shift are trained. ``resnet_dropout`` is for the ResNets and
    timm models; as in DomainBed, the two small networks have no dropout.

    Args:
        input_shape: (channels, height, width).
        hparams: read with the registry's defaults where a name is missing.

    Attributes:
        n_outputs: number of features.

    Raises:
        UserError: no network reads such images, weights cannot be fetched, timm is needed and missing, or has no such
            model.
    """

    n_outputs: int

    def __init__(self, input_shape: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__()
        self.freeze_bn = bool(hparams.get("freeze_bn", False))
        channels, *size = input_shape
        dropout, pretrained = hparams.get("resnet_dropout", 0.0), hparams.get("pretrained", True)
        if hparams.get("backbone"):
            self.network = timm_model(hparams["backbone"], channels, pretrained)
            self.n_outputs = _width(self.network, input_shape, hparams["backbone"])
        elif size == [28, 28]:
            self.network, self.n_outputs = small_cnn(channels, hparams.get("cnn_width", 64))
            dropout = 0.0
        elif size == [32, 32]:
            self.network, self.n_outputs = wide_resnet(channels)
            dropout = 0.0
        elif len(size) == 2 and min(size) > 32:
            name, self.n_outputs = ("resnet18", 512) if hparams.get("resnet18", False) else ("resnet50", 2048)
            self.network = resnet(name, channels, pretrained)
        else:
            raise UserError(f"no network for inputs of shape {tuple(input_shape)}: give images of 28, 32 or over 32 px")
        self.dropout = nn.Dropout(dropout)
        self.train()

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
    """DomainBed's network for 28 px: four 3x3 convolutions, each ReLU then GroupNorm(8); then the mean over pixels.

    Raises:
        UserError: ``width`` does not divide into GroupNorm's 8 groups.
    """
    if width < 8 or width % 8:
        raise UserError(f"hparam cnn_width must be a positive multiple of 8, not {width}")
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
    """Wide-ResNet of Zagoruyko and Komodakis (BMVC 2016), for 32 px: depth 6 n + 4, three groups of n blocks.

    As in DomainBed, and unlike the paper: convolutions have a bias, a block's second convolution has its stride, the
    shortcut reads the block's raw input, and the last BatchNorm has momentum 0.9.
    """
    blocks = (depth - 4) // 6
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1)]
    wide_in = 16
    for group in range(3):
        wide_out = 16 * widen * 2**group
        for block in range(blocks):
            layers.append(_PreActivation(wide_in, wide_out, 2 if group and not block else 1))
            wide_in = wide_out
    last = nn.BatchNorm2d(wide_in, momentum=0.9)
    return nn.Sequential(*layers, last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), wide_in


def _width(network: nn.Module, input_shape: Sequence[int], name: str) -> int:
    """Number of features that a timm model gives, found by one forward pass of a black image.

    Raises:
        UserError: it cannot read images of this shape, or gives no vector.
    """
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"backbone {name!r} cannot read inputs of shape {tuple(input_shape)}: {reason}") from error
    if features.ndim != 2:
        raise UserError(f"backbone {name!r} gives features of shape {tuple(features.shape[1:])}, not one vector")
    return features.shape[1]
