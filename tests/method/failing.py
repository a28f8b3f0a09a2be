"""Steps that fail where a test wants them to, and all that a step may change."""

import copy

import torch


def state_of(step):
    return copy.deepcopy(
        {"model": step.model.state_dict(), "optimizer": step.optimizer.state_dict()["state"], "step": dict(step.state)}
    )


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(a, b)


def fail_in(step, which, value):
    """Make the gradient of one parameter ``value`` in the n-th backward pass to it."""
    calls = []

    def spoil(gradient):
        calls.append(1)
        return gradient * value if len(calls) == which else gradient

    return step.model[3].weight.register_hook(spoil)
