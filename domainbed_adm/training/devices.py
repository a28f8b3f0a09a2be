"""A run on several devices: how its processes meet, what each trains on, and what cannot be shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from domainbed_adm.errors import UserError
from domainbed_adm.method.batch_norm import synchronise
from domainbed_adm.method.ranks import ALONE, Ranks
from domainbed_adm.method.side_effects import has_moving_batch_norm
from domainbed_adm.method.step import TrainingStep

#: How long a process waits for another that lives but does not answer. One that ends is noticed at once.
PATIENCE = timedelta(hours=1)


def check_devices(count: int) -> None:
    """Check that there are so many GPUs, where there are any; on a CPU there may be as many processes as one likes.

    Raises:
        UserError: there are fewer.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else count
    if there < count:
        raise UserError(
            f"--devices {count}: there {'is 1 GPU' if there == 1 else f'are {there} GPUs'} here: give at most that"
        )


def device_of(ranks: Ranks) -> torch.device:
    """The device of this process."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", ranks.rank) if ranks.count > 1 else torch.device("cuda")


def named_device(name: str | None) -> torch.device:
    """The device of this name, "cpu", "cuda" or "cuda:1"; None: a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    if name is None:
        return device_of(ALONE)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch says that it was built without
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        there = f"cpu{', cuda' if gpus else ''}{f', cuda:0 to cuda:{gpus - 1}' if gpus > 1 else ''}"
        raise UserError(f"no device {name} here; there are: {there}") from error
    return device


def backend(device: torch.device) -> str:
    """What carries tensors between the processes: those of a GPU by NCCL, those of the CPU by Gloo."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def join(ranks: Ranks, meeting: str) -> None:
    """Wait for the other processes of the run, in the file ``meeting``."""
    device = device_of(ranks)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend(device),
        init_method=f"file://{meeting}",
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=PATIENCE,
    )


def check_shares(count: int, hparams: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """Check that no share of a minibatch is empty.

    Args:
        count: of devices.
        hparams: the run's.
        sizes: samples of each source environment.

    Raises:
        UserError: one is.
    """
    batch_size = hparams["batch_size"]
    if batch_size <= count:
        raise UserError(
            f"--devices {count} share out the {batch_size} samples of hparam batch_size: it must be above {count}"
        )
    if hparams.get("sampling") == "epoch" and not hparams.get("drop_last"):
        least = sum(size % batch_size or batch_size for size in sizes)
        if least < count:
            raise UserError(
                f"--devices {count}: the last minibatch of an epoch has {least} samples: set hparam drop_last to true"
            )


def share_out(algorithm: Any, ranks: Ranks, batchnorm: str) -> None:
    """Have an algorithm's step train with the other ranks.

    Raises:
        UserError: it has no ``TrainingStep``, or its parts do not go together.
    """
    step = getattr(algorithm, "step", None)
    if not isinstance(step, TrainingStep):
        raise UserError(
            f"--devices averages gradients in self.step, and {type(algorithm).__name__} does not train by it: "
            "take one device"
        )
    if batchnorm == "sync" and has_moving_batch_norm(algorithm):
        if step.ascent == "local":
            raise UserError(
                "hparam ascent local computes each device's share by itself, BatchNorm too: give --batchnorm local"
            )
        synchronise(algorithm, ranks)
    step.ranks = ranks


def depends_on_devices(algorithm: Any, hparams: Mapping[str, Any], batchnorm: str) -> bool:
    """Whether the number of devices is part of what a run computes, beyond rounding and dropout's masks."""
    return hparams.get("ascent") == "local" or (batchnorm == "local" and has_moving_batch_norm(algorithm))


def check_alike(algorithm: Any, ranks: Ranks) -> None:
    """Check that all ranks have the same network, which they have as long as only ``self.step`` changes it.

    Raises:
        UserError: they have not.
    """
    if ranks.count == 1:
        return
    tensors = [tensor for tensor in algorithm.state_dict().values() if tensor.is_floating_point()]
    sums = torch.stack([tensor.double().sum() for tensor in tensors])
    if any(not torch.equal(sums, other) for other in ranks.every(sums)):
        raise UserError(
            f"the devices' networks differ: {type(algorithm).__name__} does not change it by self.step alone: "
            "take one device"
        )
