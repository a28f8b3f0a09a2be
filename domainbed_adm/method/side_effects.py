"""Passes that leave no trace: running statistics that do not move, random numbers that repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

#: Noise of other packages (timm, torchvision), known by the names of their classes.
NOISE = {"DropPath", "StochasticDepth", "DropBlock2d", "DropBlock3d", "PatchDropout"}


def has_moving_batch_norm(model: nn.Module) -> bool:
    """Whether BatchNorm, in training mode or without running statistics, ties a sample's loss to the other samples."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in model.modules()
    )


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block a module normalises as its mode says, but its running statistics and counters do not move.

    It holds for BatchNorm, InstanceNorm with running statistics, and both of torch's spectral norms (which use the
    vectors of the last pass instead of iterating once more). Buffers that other modules move in ``forward`` move in
    every pass.
    """
    changes = [
        (module, name, getattr(module, name), value)
        for module in model.modules()
        if module.training
        for name, value in _without_moving(module)
    ]
    for module, name, _, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, before, _ in changes:
            setattr(module, name, before)


def _without_moving(module: nn.Module) -> Sequence[tuple[str, Any]]:
    """The attributes, and their values, with which a module in training mode moves nothing."""
    if isinstance(module, _BatchNorm) and module.track_running_stats:
        return [("track_running_stats", False)]
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        return [("running_mean", None), ("running_var", None), ("num_batches_tracked", None)]
    if isinstance(module, _SpectralNorm) or any(
        isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()
    ):
        return [("training", False)]
    return ()


@contextmanager
def as_trained(model: nn.Module) -> Iterator[None]:
    """Within the block the model computes the loss that training sees, without its noise; after it, all is as before.

    Training mode, as the model itself means it (a frozen BatchNorm stays frozen): BatchNorm normalises by the
    statistics of each mini-batch, and its running statistics do not move. Off are torch's dropout modules, timm's
    DropPath, DropBlock2d and PatchDropout, and torchvision's StochasticDepth and DropBlock, so that a loss is a
    function of the parameters and the inputs alone. Noise that a module makes by a function which reads its own
    ``self.training`` (``F.dropout(x, training=self.training)``) stays on: no module stands for it.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd) or any(base.__name__ in NOISE for base in type(module).__mro__):
            module.training = False
    try:
        with frozen_statistics(model):
            yield
    finally:
        for module, training in before:
            module.training = training


class RandomState:
    """The state of PyTorch's generators, the CPU's and those of the devices given, to draw the same masks again.

    Any kind of device that torch has a module for (cuda, xpu, mps, ...). NumPy's and Python's generators, and
    ``torch.Generator`` objects that a model owns, are not part of it.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cpu = torch.get_rng_state()
        self._others: list[tuple[torch.device, Tensor]] = [
            (device, torch.get_device_module(device).get_rng_state(*_which(device)))
            for device in devices
            if device.type not in ("cpu", "meta")
        ]

    def moved(self) -> bool:
        """Whether a generator drew since this state was read. The device is not asked: its seeds stand on the host."""
        now = RandomState([device for device, _ in self._others])
        pairs = zip(self._others, now._others, strict=True)
        return not torch.equal(self._cpu, now._cpu) or any(not torch.equal(a, b) for (_, a), (_, b) in pairs)

    def restore(self) -> None:
        """Set the generators to this state."""
        torch.set_rng_state(self._cpu)
        for device, state in self._others:
            torch.get_device_module(device).set_rng_state(state, *_which(device))

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Within the block random numbers repeat from this state on; after it they go on as if nothing had happened."""
        before = RandomState([device for device, _ in self._others])
        self.restore()
        try:
            yield
        finally:
            before.restore()


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """Arguments that name the device to its module; Apple's has one device and takes none."""
    return () if device.type == "mps" else (device,)
