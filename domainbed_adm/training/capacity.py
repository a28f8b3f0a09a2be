"""Whether a run fits into memory: told in one line, before the system ends the process where that can be known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from domainbed_adm.errors import LoadingError, UserError
from domainbed_adm.system import machine

#: Numbers kept for each parameter: its value, its gradient, Adam's two means.
_COPIES = 4
#: Peak of a step's activations on the CPU over those kept of one forward pass: measured 1.35 to 1.4, and from 1.8 where
#: it differentiates by its inputs too, as GDM and ADM do.
_PEAK, _PEAK_BY_INPUTS = 1.3, 1.75
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")
#: What torch says where a loading process was killed, or found no shared memory to hand over what it loaded.
_KILLED = ("exited unexpectedly", "is killed by signal", "shared memory", "unable to write to file </torch_")
_ADVICE = "lower the hparam batch_size (or image_size), or take a smaller network"


def check_fits(make: Callable[[], nn.Module], batch: Sequence[int], by_inputs: bool, what: str) -> None:
    """Refuse a run on the CPU that cannot fit: there the system lets a process take too much, and kills it.

    Args:
        make: builds the algorithm; it is built without numbers here, and draws none.
        batch: shape of the inputs of a step.
        by_inputs: whether the method differentiates by the inputs, in a pass of its own.
        what: the run in words.

    Raises:
        UserError: the least it needs is more than there is.
    """
    with _generators_as_before():
        least = least_memory(make, batch, _PEAK_BY_INPUTS if by_inputs else _PEAK)
    if least > machine.memory():
        there = machine.memory() / 2**30
        raise UserError(f"{what} needs {least / 2**30:,.0f} GiB of memory or more, {there:,.0f} are there: {_ADVICE}")


def least_memory(make: Callable[[], nn.Module], batch: Sequence[int], peak: float = 1.0) -> float:
    """Bytes that a training step holds at the least: parameters, gradients and Adam's state, and ``peak`` times what a
    forward pass keeps for the backward pass. 0 for an algorithm of others that cannot be looked at without numbers.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            algorithm = make()
            out = algorithm.predict(torch.empty(*batch))  # type: ignore[operator]
        own = {param.untyped_storage()._cdata: param.nbytes for param in algorithm.parameters()}
        del out
    except Exception:  # it may do anything
        return 0
    activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    return _COPIES * sum(own.values()) + peak * activations


@contextmanager
def _generators_as_before() -> Iterator[None]:
    """What the block draws of the global generators, as an algorithm of others may, is not drawn."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Within the block, memory that is not enough is one line; so is a loading process that was killed.

    Raises:
        UserError: it was not.
        LoadingError: one was.
        MemoryError: never; it becomes a UserError.
        RuntimeError: as raised, where it is another.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _KILLED):
            raise LoadingError(
                f"a process that loads data was killed, perhaps for want of memory: {what}: try --workers 0, or lower "
                "the hparam batch_size"
            ) from error
        named = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if not named and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise UserError(f"out of memory: {what}: {_ADVICE}") from error
