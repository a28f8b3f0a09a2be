"""Averages of the weights that training passes through: EMA, and SWAD with its loss valley.

An average watches a module: ``update`` once after each step, ``held`` to have the module hold the average for a while.
Averaged are all parameters. Running statistics of BatchNorm and InstanceNorm are averaged by EMA; SWAD's weights need
them estimated anew (:func:`estimate_statistics`), as they come from segments far apart.

An update is one operation over all parameters: 0.4 % of the CPU time of a step of ResNet-18 on 24 images of 224 px; of
the network for 28 px 0.05 % with 192 images and 64 channels, 0.3 % with 48 and 16 (ERM, one thread).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Average:
    """The tensors of a module that are averaged, and their average once there is one.

    Attributes:
        average: a tensor for each parameter, then for each running statistic; empty while there is no average.
    """

    def __init__(self, module: nn.Module) -> None:
        self.params: list[Tensor] = list(module.parameters())
        self.statistics: list[Tensor] = [
            tensor for norm in _norms(module) for tensor in (norm.running_mean, norm.running_var) if tensor is not None
        ]
        self.average: list[Tensor] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the module holds the average; after it, bit for bit what it held, with the same tensors.

        What the block writes into the module stays in the average. Cost: a copy, and the memory of one tensor.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for there, here in zip(self.average, [*self.params, *self.statistics], strict=True):
            before = here.clone()
            here.copy_(there)
            there.copy_(before)
        torch.clear_autocast_cache()


class EMA(Average):
    """Exponential moving average: a <- d a + (1 - d) theta after each step, of running statistics too.

    d after the t-th step is min(decay, (1 + t) / (10 + t)), so that a short run is not an average of its start (our
    choice; TensorFlow's and timm's warm-up). Cost: one pass over the parameters a step, one copy of them.

    Args:
        module: what is averaged; its weights are the start.
        decay: in [0, 1); 0 gives the last weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay, self.steps = decay, 0
        self.average = [tensor.detach().clone() for tensor in (*self.params, *self.statistics)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [*self.params, *self.statistics], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """All that lasts from step to step, as tensors and numbers."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""
        self.steps = state["steps"]
        _copy(self.average, state["average"])


@dataclass(frozen=True)
class Valley:
    """What SWAD makes of the losses so far.

    Attributes:
        converged: the segment at whose end the loss was lowest before it stopped falling; None until then.
        threshold: the loss above which the valley ends; None until then.
        taken: the segments in the average, in order; one that is named twice counts twice.
        dead: whether the valley has ended: later segments change nothing.
    """

    converged: int | None = None
    threshold: float | None = None
    taken: tuple[int, ...] = ()
    dead: bool = False


def loss_valley(
    losses: Sequence[float], n_converge: int, n_tolerance: int, tolerance_ratio: float, ended: bool = False
) -> Valley:
    """Which segments of training SWAD averages (Cha et al., NeurIPS 2021, algorithm 1), as its authors' code decides.

    Training has converged at segment c where its loss is the lowest of the ``n_converge`` from c on; the threshold is
    their mean times 1 + ``tolerance_ratio``. The average begins after the first of the segments before c, of the last
    ``n_tolerance``, from which on no loss was above the threshold. From then on the oldest of the last ``n_tolerance``
    segments is taken as each new one ends, until all of these have losses above the threshold. As in the authors'
    code (khanrc/swad 252190e) segment c itself, and those after it where training converges before ``n_tolerance``
    segments are full, count more than once.

    Args:
        losses: on the validation sets of the sources, at the end of each segment.
        n_converge: at least 1; 3 in the paper.
        n_tolerance: at least 1; 6 in the paper.
        tolerance_ratio: at least 0; 0.3 in the paper (0.2 on VLCS).
        ended: whether training is over: the segments still waiting are taken as far as the valley goes, and one
            segment is always taken (the last where training did not converge).
    """
    converged: int | None = None
    threshold, taken, dead = 0.0, list[int](), False
    for last in range(len(losses)):
        oldest = max(0, last - n_tolerance + 1)
        if converged is None:
            window = losses[last - n_converge + 1 : last + 1] if last + 1 >= n_converge else ()
            if window and window[0] <= min(window):
                converged, threshold = last - n_converge + 1, sum(window) / n_converge * (1 + tolerance_ratio)
                if n_tolerance < n_converge:
                    taken += range(converged + 1, converged + 1 + n_converge - n_tolerance)
                else:
                    before = range(oldest, min(oldest + n_tolerance - n_converge, last) + 1)
                    begin = max((k + 1 for k in before if losses[k] > threshold), default=oldest)
                    taken += range(begin + 1, before.stop) if n_tolerance > n_converge else ()
        elif oldest >= converged:
            dead = min(losses[oldest : last + 1]) > threshold
            if dead:
                break
            taken.append(oldest)
    if converged is None:
        return Valley(taken=(len(losses) - 1,) if ended else ())
    if ended:
        waiting = range(0 if dead else max(0, len(losses) - n_tolerance) + 1, 0 if dead else len(losses))
        taken += [k for k in waiting if min(losses[k:]) <= threshold]
        taken = taken or [converged]
    return Valley(converged, threshold, tuple(taken), dead)


class SWAD(Average):
    """Stochastic weight averaging, densely, within the valley of the validation loss (Cha et al., NeurIPS 2021).

    The weights after each step are averaged over a segment, that is the steps between two evaluations; the result is
    the mean of the segments that :func:`loss_valley` takes. Cost: one pass over the parameters a step, one copy of them
    on their device; max(n_converge, n_tolerance) copies more in the host's memory, as segments wait to be judged.

    Attributes:
        losses: of each segment that has ended.
        valley: what was decided; ``valley.taken`` of :meth:`finish` is what the average is of.
        ends: the step, counted from 0, at which each segment ended.
    """

    def __init__(self, module: nn.Module, n_converge: int, n_tolerance: int, tolerance_ratio: float) -> None:
        super().__init__(module)
        self._how = n_converge, n_tolerance, tolerance_ratio
        self.losses: list[float] = []
        self.ends: list[int] = []
        self.valley = Valley()
        self.steps = 0
        self._segment, self._count = [torch.empty_like(param) for param in self.params], 0
        self._kept: dict[int, list[Tensor]] = {}
        self._mean: list[Tensor] = []
        self._n_taken = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        if self.valley.dead:
            return
        self._count += 1
        if self._count == 1:
            torch._foreach_copy_(self._segment, self.params)
        else:
            torch._foreach_lerp_(self._segment, self.params, 1 / self._count)

    def end_segment(self, loss: float) -> None:
        """An evaluation, with this mean loss on the validation sets of the sources, of the weights as they are."""
        if self.valley.dead:
            return
        self._kept[len(self.losses)] = [tensor.to("cpu", copy=True) for tensor in self._segment]
        self.losses.append(loss)
        self.ends.append(self.steps - 1)
        self._count = 0
        self._judge(ended=False)
        oldest = len(self.losses) - max(self._how[:2])
        needed = {self.valley.converged} if self.valley.converged is not None and not self._n_taken else set()
        self._kept = {
            k: kept for k, kept in self._kept.items() if k in needed or (k >= oldest and not self.valley.dead)
        }

    def finish(self) -> None:
        """Training is over: :attr:`average` has the result, with running statistics as they are now."""
        self._judge(ended=True)
        self._kept = {}
        self.average = [
            *(mean.to(param.device) for mean, param in zip(self._mean, self.params, strict=True)),
            *(tensor.clone() for tensor in self.statistics),
        ]

    def _judge(self, ended: bool) -> None:
        self.valley = loss_valley(self.losses, *self._how, ended=ended)
        for k in self.valley.taken[self._n_taken :]:
            self._n_taken += 1
            if self._n_taken == 1:
                self._mean = [tensor.clone() for tensor in self._kept[k]]
            else:
                torch._foreach_lerp_(self._mean, self._kept[k], 1 / self._n_taken)

    def state_dict(self) -> dict[str, Any]:
        """All that lasts from step to step, as tensors and numbers."""
        return {
            "steps": self.steps,
            "losses": self.losses,
            "ends": self.ends,
            "segment": self._segment if self._count else [],
            "count": self._count,
            "kept": self._kept,
            "mean": self._mean,
            "n_taken": self._n_taken,
            "average": self.average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""
        self.steps, self.losses, self.ends = state["steps"], list(state["losses"]), list(state["ends"])
        self._count, self._n_taken = state["count"], state["n_taken"]
        if self._count:
            _copy(self._segment, state["segment"])
        self._kept, self._mean = dict(state["kept"]), list(state["mean"])
        devices = [tensor.device for tensor in (*self.params, *self.statistics)]
        self.average = [tensor.to(device) for tensor, device in zip(state["average"], devices, strict=False)]
        self.valley = loss_valley(self.losses, *self._how, ended=bool(self.average))


def has_moving_statistics(module: nn.Module) -> bool:
    """Whether running statistics move while the module trains: there are some, in training mode."""
    return any(norm.training for norm in _norms(module))


@torch.no_grad()
def estimate_statistics(module: nn.Module, forward: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> None:
    """Replace the running statistics that move by their plain means over some training batches.

    Statistics that stand still (``freeze_bn``) stay. Counters of batches and momenta are what they were.

    Args:
        module: in training mode.
        forward: the module's pass. Cost: 1 F for each batch.
        batches: inputs.
    """
    moving = [norm for norm in _norms(module) if norm.training]
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in moving if _counts(norm)]
    for norm, _, _ in before:
        norm.momentum = None
        norm.num_batches_tracked.zero_()
    try:
        for x in batches:
            forward(x)
    finally:
        for norm, momentum, counted in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(counted)


def _counts(norm: Any) -> bool:
    return norm.num_batches_tracked is not None


def _norms(module: nn.Module) -> list[Any]:
    """The modules with running statistics."""
    return [part for part in module.modules() if isinstance(part, _NormBase) and part.running_mean is not None]


def _copy(own: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    for tensor, value in zip(own, saved, strict=True):
        tensor.copy_(value)
