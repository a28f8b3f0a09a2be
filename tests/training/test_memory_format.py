"""Networks above 32 px compute with channels last in memory; nothing of a run depends on how a file keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from domainbed_adm.networks import Featurizer
from tests.training.test_resume import assert_same, train, train_killed

#: (method, weighting): the base, each flatness rule, each weighting.
CASES = [("ERM", "both"), ("FSAM_SPL_ADM", "memory"), ("SAGM_SSPL_GDM", "both"), ("SAM_SSPL_ADM", "descent")]
LAST, FIRST = torch.channels_last, torch.contiguous_format
SMALL = {"resnet18": True, "pretrained": False, "image_size": 64}


def convolved(network: nn.Module, x: Tensor) -> list[Tensor]:
    """What the 3x3 convolutions gave, whose memory can be told from their strides."""
    seen: list[Tensor] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(lambda layer, args, output: seen.append(output))
    network(x)
    return seen


@pytest.mark.parametrize(
    ("size", "hparams", "expected"),
    [(64, {}, LAST), (64, {"resnet18": True}, LAST), (33, {}, LAST), (32, {}, FIRST), (28, {}, FIRST)],
)
def test_channels_are_last_above_32_px(size: int, hparams: dict[str, Any], expected: torch.memory_format) -> None:
    network = Featurizer((3, size, size), {"pretrained": False, **hparams})
    weights = [param for param in network.parameters() if param.ndim == 4 and min(param.shape) > 1]
    outputs = [output for output in convolved(network, torch.rand(2, 3, size, size)) if min(output.shape) > 1]
    assert weights
    assert outputs
    assert all(tensor.is_contiguous(memory_format=expected) for tensor in weights + outputs)


def test_channels_last_and_first_agree() -> None:
    torch.manual_seed(0)
    last = Featurizer((3, 64, 64), {"pretrained": False, "resnet18": True})
    first = Featurizer((3, 64, 64), {"pretrained": False, "resnet18": True})
    first.load_state_dict(last.state_dict())
    first.network.to(memory_format=FIRST)
    x = torch.rand(4, 3, 64, 64, requires_grad=True)
    for network in (last, first):
        network.double()
    ours, theirs = (network(x.double()) for network in (last, first))
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    inputs, others = (torch.autograd.grad(y.square().mean(), x)[0] for y in (ours, theirs))
    assert torch.allclose(inputs, others, rtol=1e-5, atol=1e-8)
    assert inputs.abs().max() > 1e-5


@pytest.mark.parametrize(
    ("name", "weighting"), [pytest.param(*case, marks=pytest.mark.slow) for case in CASES[:-1]] + CASES[-1:]
)
def test_resumes_exactly(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, weighting: str
) -> None:
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--checkpoint_every", "1", "--workers", "0"]
    options: dict[str, Any] = {"weighting": weighting, "resnet_dropout": 0.1, **SMALL}
    assert train(tmp_path / "whole", name, *flags, **options) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, *flags, **options)
    assert train(tmp_path / "broken", name, *flags, **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
