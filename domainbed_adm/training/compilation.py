"""The network's passes compiled by ``torch.compile``; parameters, state dicts and files are as without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from domainbed_adm.errors import UserError, one_line

_BACKEND = "inductor"


def check_compiles(device: torch.device) -> None:
    """Check that torch compiles for the device, and drop what this process compiled for earlier runs.

    Raises:
        UserError: it does not; the message says what to do.
    """
    try:
        torch.compiler.reset()
        _compiled(lambda x: x.cos() + 1)(torch.ones(2, device=device))
    except Exception as error:  # torch lacks a compiler, Triton, a header, or support for this Python or platform
        needed = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        raise UserError(
            f"--compile: torch cannot compile for {device.type} here ({_told(error)}): install {needed}, or leave "
            "--compile out"
        ) from error


def compile_network(algorithm: Any) -> None:
    """Compile the forward pass of ``algorithm.network``, in place.

    Code is made at the first pass of each kind: with or without gradients, with statistics that move or stand still, in
    training or evaluation mode, for each shape. A run has few, all of them in its first step and its first evaluation.

    Raises:
        UserError: the algorithm has no such network.
    """
    network = getattr(algorithm, "network", None)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--compile compiles self.network, which {type(algorithm).__name__} does not have: leave --compile out"
        )
    vars(network)["forward"] = _compiled(network.forward)


@contextmanager
def uncompiled(algorithm: Any) -> Iterator[None]:
    """Within the block the network is computed as it is written: for shapes that are not worth code of their own."""
    attributes = vars(getattr(algorithm, "network", None) or nn.Module())
    compiled = attributes.pop("forward", None)
    try:
        yield
    finally:
        if compiled is not None:
            attributes["forward"] = compiled


def not_compiled(error: BaseException) -> str | None:
    """What to say of an error where the compiler raised it; None where it did not."""
    if not type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
        return None
    return f"--compile: torch cannot compile this network ({_told(error)}): leave --compile out"


def _compiled(function: Any) -> Any:
    # Shapes are constants: which of them torch took for variable would depend on their order, and a run that goes on
    # meets them in another.
    return torch.compile(function, dynamic=False, backend=_BACKEND, options=_options())


def _options() -> dict[str, Any] | None:
    """Random numbers that are drawn as without compilation, so that passes and resumed runs repeat them."""
    if _BACKEND != "inductor":
        return None
    options: dict[str, Any] = {"fallback_random": True}
    if "deterministic" in torch._inductor.list_options():  # torch 2.9: kernels are not chosen by timing them
        options["deterministic"] = True
    return options


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error, 200)}"
