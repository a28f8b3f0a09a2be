"""Whether what a file holds could be a run's own: tensors of the same shapes and dtypes, numbers of the same ranges."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from domainbed_adm.hparams_registry import Choice, Number
from domainbed_adm.method import memory
from domainbed_adm.method.state import StepState
from domainbed_adm.training.schema import Counter, Like, Spec, fault


def weights_fault(algorithm: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """Say which parameter or buffer is not of the algorithm's shape and dtype: torch would convert it silently."""
    own = [*algorithm.named_parameters(remove_duplicate=False), *algorithm.named_buffers(remove_duplicate=False)]
    spec = {name: Like(value.shape, value.dtype) for name, value in own if name in weights}
    return fault(weights, spec, "algorithm")


def optimizer_fault(optimizer: Optimizer, saved: dict[str, Any], place: str) -> str | None:
    """Say what a saved state dict of an optimizer does not hold as it must; None where it does."""
    states = _state_after_a_step(optimizer)
    spec = {
        "param_groups": _spec(optimizer.state_dict()["param_groups"]),
        "state": {index: states.get(index, {}) for index in saved["state"]},
    }
    return fault(saved, spec, place)


def step_state_fault(algorithm: nn.Module, params: list[Tensor], n_samples: int) -> str | None:
    """Say what a training step does not keep as it must: counts, a mean like its parameter, a memory of the samples.

    The memory may be twice as long as there are samples (see ``memory``).
    """
    for state in algorithm.modules():
        if not isinstance(state, StepState):
            continue
        spec: dict[str, Spec] = {"update_count": Number(0, 2**53, integer=True)}
        for name, tensor in state.items():
            position = name.rpartition("_")[2]
            if position.isdecimal() and int(position) < len(params):
                spec[name] = _spec(params[int(position)])
            elif name == memory.KEY:
                spec[name] = Like(torch.Size([min(tensor.numel(), 2 * n_samples)]), torch.float32)
        wrong = fault({"update_count": state.update_count, **state}, spec, "algorithm")
        if wrong:
            return wrong
    return None


def _state_after_a_step(optimizer: Optimizer) -> Spec:
    """What it holds of each parameter after a step; empty where its step cannot do without numbers."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    shapes = [nn.Parameter(torch.empty_like(param, device="meta")) for param in params]
    for shape in shapes:
        shape.grad = torch.empty_like(shape)
    try:
        twin = copy.deepcopy(optimizer, {id(param): shape for param, shape in zip(params, shapes, strict=True)})
        twin.step()
    except Exception:  # of another's optimizer, which may do anything
        return {}
    return {
        index: {name: _spec(value) for name, value in state.items()}
        for index, state in twin.state_dict()["state"].items()
    }


def _spec(own: Any) -> Spec:
    """What may stand in the place of a run's own value: a schedule moves numbers, and nothing else."""
    if isinstance(own, Tensor):  # beside meta tensors a number that is known is a count of steps, or the like
        counts = not own.is_meta and not own.ndim and not isinstance(own, nn.Parameter)
        return (Counter if counts else Like)(own.shape, own.dtype)
    if isinstance(own, dict):
        return {name: _spec(value) for name, value in own.items()}
    if isinstance(own, (list, tuple)):
        return tuple(map(_spec, own))
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return Number(min(own, 0), 1, open_high=True) if own < 1 else Number(0, own)
    return Choice((own,))
