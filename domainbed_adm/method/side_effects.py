"""Passes that leave no trace: BatchNorm statistics that do not move, random numbers that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def has_moving_batch_norm(model: nn.Module) -> bool:
    """Whether BatchNorm in training mode makes a sample's loss depend on the other samples of the batch."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


@contextmanager
def still_batch_norm(model: nn.Module) -> Iterator[None]:
    """Within the block, BatchNorm normalises as its mode says but its running statistics and counter do not move.

    Of other normalisations that keep running statistics (InstanceNorm may), those move in every pass.
    """
    moving = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for module in moving:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in moving:
            module.track_running_stats = True


@contextmanager
def as_trained(model: nn.Module) -> Iterator[None]:
    """Within the block the model computes the loss that training sees, without its noise; after it, all is as before.

    Training mode, as the model itself means it (a frozen BatchNorm stays frozen): BatchNorm normalises by the
    statistics of each mini-batch, and its running statistics do not move. Dropout modules are off, so that a loss is a
    function of the parameters and the inputs alone.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.training = False
    try:
        with still_batch_norm(model):
            yield
    finally:
        for module, training in before:
            module.training = training


class RandomState:
    """The state of PyTorch's generators (CPU, and CUDA where the inputs are there), to draw the same masks again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._gpu: Tensor | None = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set the generators to this state."""
        torch.set_rng_state(self._cpu)
        if self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu, self._device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Within the block random numbers repeat from this state on; after it they go on as if nothing had happened."""
        before = RandomState(self._device)
        self.restore()
        try:
            yield
        finally:
            before.restore()
