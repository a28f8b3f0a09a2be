"""BatchNorm in several processes: by the statistics of the whole batch, or each share by its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from domainbed_adm.errors import UserError
from domainbed_adm.method.ranks import Ranks

#: What follows the normalisation in timm's ``BatchNormAct2d``, by the names of its modules.
_AFTERWARDS = {"BatchNormAct2d": ("drop", "act")}


def synchronise(model: nn.Module, ranks: Ranks) -> None:
    """Have each BatchNorm in training mode normalise by the statistics of the whole batch, in place.

    Parameters, buffers and classes stay. torch's own ``SyncBatchNorm`` has no CPU; this one is the same formula on
    every device. Cost: one message in each forward pass, one in each backward pass.

    Raises:
        UserError: a BatchNorm is of a class with a forward pass of its own.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            kind = type(module)
            if kind.forward is not _BatchNorm.forward and kind.__name__ not in _AFTERWARDS:
                raise UserError(f"{kind.__name__} cannot be synchronised over devices: give --batchnorm local")
            vars(module)["forward"] = partial(_forward, module, ranks)


def average_statistics(model: nn.Module, ranks: Ranks) -> None:
    """Average over the ranks the running statistics that moved with each rank's share, in place."""
    if ranks.count > 1:
        ranks.average(
            [
                statistic
                for module in model.modules()
                if isinstance(module, (_BatchNorm, _InstanceNorm)) and module.training
                for statistic in (module.running_mean, module.running_var)
                if statistic is not None and "forward" not in vars(module)
            ]
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _forward(module: Any, ranks: Ranks, x: Tensor) -> Tensor:
    """As ``_BatchNorm.forward``; shape (B, C, ...)."""
    if ranks.count == 1 or not (module.training or module.running_mean is None):
        result: Tensor = type(module).forward(module, x)
        return result
    module._check_input_dim(x)
    result, mean, variance, n = _Normalise.apply(x, module.weight, module.bias, module.eps, ranks)
    if module.training and module.track_running_stats:
        with torch.no_grad():
            module.num_batches_tracked.add_(1)
            share = 1 / module.num_batches_tracked if module.momentum is None else module.momentum
            for running, now in ((module.running_mean, mean), (module.running_var, variance * (n / (n - 1)))):
                running.copy_((1 - share) * running + share * now)
    for name in _AFTERWARDS.get(type(module).__name__, ()):
        result = getattr(module, name)(result)
    return result


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias by channel, with the statistics of all ranks' samples.

    Also returns mean and (biased) variance, shape (C,), and the number of values of a channel; they have no gradient.
    Computed in single precision at least. A share may be empty.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        precise, dims = x.to(torch.promote_types(x.dtype, torch.float32)), _all_but_channels(x)
        count = precise.new_full((1,), x.numel() / x.shape[1])
        mean = precise.sum(dims) / count.clamp(min=1)
        deviation = (precise - _wide(mean, x)).square().sum(dims)
        # of each rank, put together by Chan's formula, in the same order everywhere
        every = torch.stack(ranks.every(torch.cat([count, mean, deviation])))
        counts, means, deviations = torch.split(every, [1, len(mean), len(mean)], 1)
        n = counts.sum()
        mean = (counts * means).sum(0) / n
        variance = (deviations + counts * (means - mean).square()).sum(0) / n
        scale = (variance + eps).rsqrt()
        result = (precise - _wide(mean, x)) * _wide(scale, x)
        if weight is not None:
            result = result * _wide(weight, x)
        if bias is not None:
            result = result + _wide(bias, x)
        ctx.save_for_backward(x, mean, scale, n, weight)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, variance, n)
        return result.to(x.dtype), mean, variance, n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, n, weight = ctx.saved_tensors
        dims = _all_but_channels(x)
        normal, gradient = (x - _wide(mean, x)) * _wide(scale, x), gradients[0].to(mean.dtype)
        sums = torch.stack([gradient.sum(dims), (gradient * normal).sum(dims)])
        own = sums.clone()
        ctx.ranks.add_up([sums])
        of_bias, of_weight = sums / n
        back = (gradient - _wide(of_bias, x) - normal * _wide(of_weight, x)) * _wide(scale, x)
        if weight is not None:
            back = back * _wide(weight, x)
        return back.to(x.dtype), None if weight is None else own[1], None if weight is None else own[0], None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _wide(of_channels: Tensor, x: Tensor) -> Tensor:
    """Of shape (C,), against ``x``."""
    return of_channels.view(1, -1, *[1] * (x.ndim - 2))
