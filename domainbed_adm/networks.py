"""What is trained: a featurizer chosen by input shape as DomainBed does, or any timm model, and a classifier on top."""

from __future__ import annotations

import difflib
import logging
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbed_adm.errors import UserError, one_line
from domainbed_adm.small_networks import BACKBONES, host_wide_resnet, small_cnn

if TYPE_CHECKING:
    from torchvision.models import ResNet

_SCRATCH = "or give --hparams '{\"pretrained\": false}' to train from scratch"


class Featurizer(nn.Module):
    """Features of an input, shape (B, n_outputs): a backbone, then dropout.

    ====================  ==================================================================================
    hparam ``backbone``   ``cifar_resnet18``, ``wrn_28_10``, ``wrn_16_8`` from scratch, or that timm model
    28 px                 :func:`~domainbed_adm.small_networks.small_cnn`, GroupNorm
    32 px                 :func:`~domainbed_adm.small_networks.host_wide_resnet`, WRN-16-2
    larger                torchvision's ResNet-50, ``resnet18`` ResNet-18, ImageNet weights V1 if ``pretrained``
    ====================  ==================================================================================

    With ``freeze_bn`` every BatchNorm stays in evaluation mode, whatever ``train()`` says: it normalises with its
    stored statistics, which do not move; its scale and shift are trained. ``resnet_dropout`` is for the ResNets and
    timm models; as in DomainBed, the two small networks have no dropout. ``input_shape`` is (channels, height, width);
    hparams that are missing have the registry's defaults.

    Above 32 px kernels lie with their channels last in memory, and so does all that convolutions compute from them.
    CPU time against channels first, one thread of an EPYC with AVX-512, 224 px, a training step and evaluation:
    ResNet-18 0.85 and 0.72 in fp32, 0.81 and 0.62 in bf16; ResNet-50 0.89 and 0.89, 0.78 and 0.69. Inputs stay as they
    come: the first convolution reads either (0.99 to 1.03). Not measured on a GPU.

    Raises:
        UserError: no network reads such images, weights cannot be fetched, timm is needed and missing, or has no such
            model.
    """

    network: nn.Module
    n_outputs: int

    def __init__(self, input_shape: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__()
        self.freeze_bn = bool(hparams.get("freeze_bn", False))
        channels, *size = input_shape
        dropout, pretrained = hparams.get("resnet_dropout", 0.0), hparams.get("pretrained", True)
        if hparams.get("backbone") in BACKBONES:
            self.network, self.n_outputs = BACKBONES[hparams["backbone"]](channels)
        elif hparams.get("backbone"):
            self.network, self.n_outputs = timm_model(hparams["backbone"], input_shape, pretrained)
        elif size == [28, 28]:
            self.network, self.n_outputs = small_cnn(channels, hparams.get("cnn_width", 64))
            dropout = 0.0
        elif size == [32, 32]:
            self.network, self.n_outputs = host_wide_resnet(channels)
            dropout = 0.0
        elif len(size) == 2 and min(size) > 32:
            name, self.n_outputs = ("resnet18", 512) if hparams.get("resnet18", False) else ("resnet50", 2048)
            self.network = resnet(name, channels, pretrained)
        else:
            raise UserError(f"no network for inputs of shape {tuple(input_shape)}: give images of 28, 32 or over 32 px")
        if min(size) > 32:
            self.network.to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (B, n_outputs)."""
        return cast(Tensor, self.dropout(self.network(x)))

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


def resnet(name: str, channels: int, pretrained: bool) -> ResNet:
    """Return torchvision's "resnet18" or "resnet50" without its last layer, and with its IMAGENET1K_V1 if pretrained.

    One grey channel gets the sum of the three pretrained kernels, which is the network seeing a grey image in three
    equal channels; other numbers get the kernels in turn, as in DomainBed.

    Raises:
        UserError: the weights can neither be found on disk nor fetched; the message says which file to put where.
    """
    from torchvision.models import get_model, get_model_weights  # here: two seconds, and small networks do without

    network: ResNet = get_model(name, weights=None)
    if pretrained:
        weights = get_model_weights(name)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise UserError(
                f"no ImageNet weights for {name} ({type(error).__name__}: {one_line(error, 200)}): put "
                f"{Path(weights.url).name} of {weights.url} in {folder}, {_SCRATCH}"
            ) from error
        network.load_state_dict(state)
    network.fc = nn.Identity()
    if channels != 3:
        kernel = network.conv1.weight.detach()
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        adapted = kernel.sum(1, keepdim=True) if channels == 1 else kernel[:, torch.arange(channels) % 3]
        network.conv1.weight = nn.Parameter(adapted)
    return network


def timm_model(name: str, input_shape: Sequence[int], pretrained: bool) -> tuple[nn.Module, int]:
    """Return a timm model without its classifier, and the number of its features.

    The name may have a weight tag ("resnet18.a1_in1k"); timm adapts pretrained kernels to the channels, and pretrained
    position embeddings to the inputs' size, where a model is made for one (ViT, Swin). Inputs are normalised as the
    dataset states (ImageNet's mean and std for folders), whatever the model was pretrained with.

    Raises:
        UserError: timm is not installed, has no such model, or cannot fetch or read its weights; or the model does not
            turn such inputs into one vector each.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("hparam backbone needs timm: pip install timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else "python -c 'import timm; print(timm.list_models())' names all"
        raise UserError(f"unknown backbone {name!r}: timm has no such model; {hint}")
    # The hub tries again and again, and says so in a line each time; our one line says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    channels, *size = input_shape
    config = None
    with suppress(RuntimeError):  # it has no such weights, as making it will say
        config = timm.get_pretrained_cfg(name)
    resized = config is not None and config.fixed_input_size and list(config.input_size[1:]) != size
    options: dict[str, Any] = {"img_size": tuple(size)} if resized else {}
    try:
        network: nn.Module = timm.create_model(name, pretrained, num_classes=0, in_chans=channels, **options)
    except Exception as error:  # timm, huggingface_hub and their HTTP client each raise their own
        source = getattr(config, "hf_hub_id", None)
        cached = f"put {source} of huggingface.co in the Hugging Face cache (HF_HOME), " if source else ""
        advice = f": {cached}{_SCRATCH}" if pretrained else ""
        told = f"{type(error).__name__}: {one_line(error, 200)}"
        raise UserError(f"cannot make backbone {name!r} ({told}){advice}") from error
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        shape, told = tuple(input_shape), one_line(error, 200)
        raise UserError(f"backbone {name!r} cannot read inputs of shape {shape}: {told}") from error
    if features.ndim != 2:
        raise UserError(f"backbone {name!r} gives features of shape {tuple(features.shape[1:])}, not one vector")
    return network, int(features.shape[1])
