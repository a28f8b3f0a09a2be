"""Networks for images of 28 and 32 px: DomainBed's, and those of the CIFAR recipes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor, nn

from domainbed_adm.errors import UserError


def small_cnn(channels: int, width: int) -> tuple[nn.Module, int]:
    """DomainBed's network for 28 px: four 3x3 convolutions, each ReLU then GroupNorm(8); then the mean over pixels.

    Raises:
        UserError: ``width`` does not divide into GroupNorm's 8 groups.
    """
    if width < 8 or width % 8:
        raise UserError(f"hparam cnn_width must be a positive multiple of 8, not {width}")
    widths = [channels, width, 2 * width, 2 * width, 2 * width]
    layers: list[nn.Module] = []
    for wide_in, wide_out, stride in zip(widths, widths[1:], (1, 2, 1, 1), strict=False):
        layers += [nn.Conv2d(wide_in, wide_out, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(8, wide_out)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2 * width


class _HostBlock(nn.Module):
    """DomainBed's wide residual block: BatchNorm, ReLU, convolution, twice, beside a shortcut."""

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
        return cast(Tensor, self.shortcut(x) + self.residual(x))


def host_wide_resnet(channels: int) -> tuple[nn.Module, int]:
    """Wide-ResNet-16-2 of Zagoruyko and Komodakis (BMVC 2016), for 32 px: three groups of two blocks, up to 128 wide.

    As in DomainBed, and unlike the paper: convolutions have a bias, a block's second convolution has its stride, the
    shortcut reads the block's raw input, and the last BatchNorm has momentum 0.9.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1)]
    for wide_in, wide_out, stride in ((16, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers.append(_HostBlock(wide_in, wide_out, stride))
    last = nn.BatchNorm2d(128, momentum=0.9)
    return nn.Sequential(*layers, last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 128


def cifar_resnet18(channels: int) -> tuple[nn.Module, int]:
    """ResNet-18 with the stem for 32 px: one 3x3 convolution of stride 1 and no pooling, as in F-SAM's CIFAR recipe.

    He et al., CVPR 2016; 11.2 million parameters. torchvision's initialisation.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # here: its import takes a while, and the others need none

    network = ResNet(BasicBlock, [2, 2, 2, 2])
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    return network, 512


class _WideBlock(nn.Module):
    """Wide-ResNet's block; where the width changes, the shortcut too reads what BatchNorm and ReLU give."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(wide_in), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(wide_in, wide_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(wide_out),
            nn.ReLU(),
            nn.Conv2d(wide_out, wide_out, 3, padding=1, bias=False),
        )
        self.shortcut = None if wide_in == wide_out else nn.Conv2d(wide_in, wide_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return cast(Tensor, shortcut + self.residual(active))


def wide_resnet(depth: int, width: int, channels: int) -> tuple[nn.Module, int]:
    """WRN-``depth``-``width`` of Zagoruyko and Komodakis (BMVC 2016) for 32 px, without dropout.

    Three groups of (depth - 4) / 6 blocks, 16, 32 and 64 times ``width`` wide. WRN-28-10 has 36.5 million parameters,
    WRN-16-8 11.0 million. Convolutions start as He et al. (ICCV 2015, fan-out) say.
    """
    wide_in, layers = 16, list[nn.Module]([nn.Conv2d(channels, 16, 3, padding=1, bias=False)])
    for group, stride in enumerate((1, 2, 2)):
        for block in range((depth - 4) // 6):
            layers.append(_WideBlock(wide_in, 16 * width * 2**group, stride if block == 0 else 1))
            wide_in = 16 * width * 2**group
    network = nn.Sequential(*layers, nn.BatchNorm2d(wide_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network, wide_in


#: By the hparam ``backbone``: functions of the number of channels. For images of 32 px, or any other size.
BACKBONES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "cifar_resnet18": cifar_resnet18,
    "wrn_28_10": partial(wide_resnet, 28, 10),
    "wrn_16_8": partial(wide_resnet, 16, 8),
}
