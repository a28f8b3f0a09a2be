"""The precision of a run's passes. Parameters, losses, scores, norms and the optimizer are in fp32 in every one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
import torch.nn.functional as F

from domainbed_adm.errors import UserError
from domainbed_adm.method.step import TrainingStep
from domainbed_adm.run_args import Precision

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Within the block, passes are computed in this precision. To be left before weights change: it keeps casts."""
    return torch.autocast(device.type, _AUTOCAST[precision]) if precision in _AUTOCAST else nullcontext()


def check_precision(precision: str, device: torch.device) -> None:
    """Check that the device computes in this precision.

    Raises:
        UserError: it does not; the message says what it has.
    """
    if precision != "fp32" and not _computes(device, precision):
        there = [name for name in get_args(Precision) if name == "fp32" or _computes(device, name)]
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
        raise UserError(f"--precision {precision}: {named} computes in {', '.join(there)} alone: give {there[-1]}")


def _computes(device: torch.device, precision: str) -> bool:
    if device.type == "cuda" and precision == "bf16":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    image, kernel = (torch.ones(1, 1, 3, 3, device=device, requires_grad=True) for _ in range(2))
    try:
        with autocast(precision, device):
            output = F.conv2d(image, kernel)
        torch.autograd.grad(output.float().sum(), image)
    except RuntimeError:  # torch lacks the kernels
        return False
    return output.dtype == _AUTOCAST[precision]


def scale_losses(algorithm: Any, device: torch.device) -> None:
    """Give the algorithm's step the loss scaler that fp16 needs.

    Raises:
        UserError: it has no ``TrainingStep`` to take one.
    """
    step = getattr(algorithm, "step", None)
    if not isinstance(step, TrainingStep):
        raise UserError(not_scaled(algorithm))
    step.scaler = torch.amp.GradScaler(device.type)


def not_scaled(algorithm: Any) -> str:
    """What to say of an algorithm that trains without the scaler."""
    return (
        f"--precision fp16 needs losses that are scaled, and {type(algorithm).__name__} does not train by self.step, "
        "which scales them: take bf16 or fp32"
    )
