"""The forward and backward passes of one training step over one batch, whole or in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed_adm.errors import UserError
from domainbed_adm.method.gradients import Gradients, add_gradients, gradient_of, present
from domainbed_adm.method.ranks import ALONE, Ranks
from domainbed_adm.method.side_effects import RandomState, frozen_statistics, has_moving_batch_norm

LossFunction = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Per-sample cross-entropy in nats, shape (B,), in single precision at least, whatever the logits are in.

    ``label_smoothing`` s in [0, 1) takes 1 - s of the label and s / K of each of the K classes as the target, so that
    the least loss is above 0 (Szegedy et al., CVPR 2016, section 7).
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(precise), y, reduction="none", label_smoothing=label_smoothing)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """sum_i v_i l_i / sum_i v_i; the plain mean where ``weights`` is None."""
    return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()


@dataclass
class MicroBatch:
    """A part of the batch, or of this rank's share of it.

    Attributes:
        place: where it stands there.
        x: inputs, shape (b, ...).
        y: labels, shape (b, ...).
        random_state: what its clean pass began with; every other pass repeats it.
        share: where its samples stand in what this rank has of the step's batch, int64 on the CPU, where they are some
            of those; None where they are all in ``place``.
    """

    place: slice
    x: Tensor
    y: Tensor
    random_state: RandomState
    share: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """Where its samples stand in what this rank has of the step's batch, int64 on the CPU, shape (b,)."""
        return torch.arange(self.place.start, self.place.stop) if self.share is None else self.share

    def within(self, places: Tensor) -> Tensor:
        """Of these places there, int64 on the CPU, ascending, those in this part."""
        return places[(places >= self.place.start) & (places < self.place.stop)]

    def rows(self, places: Tensor) -> Tensor:
        """The same, counted from its start, on the inputs' device."""
        moved: Tensor = (self.within(places) - self.place.start).to(self.x.device, non_blocking=True)
        return moved


class Passes:
    """What a step asks of the model: losses l_i, gradients in the parameters, gradients in the inputs.

    The objective is sum_i v_i l_i / sum_i v_i over the whole batch, also where it is summed over micro-batches, and
    over the shares of several ranks. Gradients are unscaled, whatever ``scaler`` says.

    Args:
        model: maps inputs to logits.
        loss: per-sample loss of (logits, y).
        params: what to take gradients in.
        x: inputs, shape (B, ...); of several ranks, this one's share.
        y: labels, shape (B, ...).
        size: samples of the whole batch; None: as many as given here.
        ranks: the processes that share the batch.
        apart: whether a gradient is of this rank's part of the objective, times the number of ranks, not of the whole.
        micro_batch: samples of a part; None for one part.
        needs_input_gradient: whether a gradient in the inputs will be asked for.
        scaler: keeps small gradients of fp16 from becoming 0; None for none.

    Raises:
        UserError: the inputs are not one tensor as long as the labels, or have no gradient and one is needed.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        params: Sequence[Tensor],
        x: Tensor,
        y: Tensor,
        *,
        size: int | None = None,
        ranks: Ranks = ALONE,
        apart: bool = False,
        micro_batch: int | None,
        needs_input_gradient: bool,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise UserError(f"x and y must be one tensor each, not {type(x).__name__} and {type(y).__name__}")
        if len(x) != len(y):
            raise UserError(f"x and y must be of one length, not {len(x)} and {len(y)}")
        if needs_input_gradient and not x.is_floating_point():
            raise UserError(f"this difficulty needs the gradient in the inputs, and inputs of {x.dtype} have none")
        self.model, self.loss, self.params, self.size = model, loss, params, len(x) if size is None else size
        self.ranks, self._apart = ranks, apart
        self.needs_input_gradient = needs_input_gradient
        # The scaler's factor as a tensor, so that the host does not wait for it.
        self._scale = None if scaler is None else scaler.scale(torch.ones((), device=x.device))
        self._devices = {x.device, *(param.device for param in params)}
        start = RandomState(self._devices)
        n = micro_batch or max(len(x), 1)
        self.parts = [
            MicroBatch(slice(k * n, k * n + len(xs)), xs.detach() if needs_input_gradient else xs, ys, start)
            for k, (xs, ys) in enumerate(zip(torch.split(x, n), torch.split(y, n), strict=True))
        ]

    def clean(self, part: MicroBatch) -> Tensor:
        """Losses with their graph, shape (b,): the one pass that moves running statistics and the random state."""
        if self.needs_input_gradient:
            part.x.requires_grad_()
        if part.place.start:
            part.random_state = RandomState(self._devices)
        return self._losses(part.x, part.y)

    def again(self, part: MicroBatch, x: Tensor | None = None) -> Tensor:
        """Losses wherever the parameters are now, or at other inputs, with the random numbers of the clean pass."""
        with frozen_statistics(self.model), part.random_state.replayed():
            return self._losses(part.x if x is None else x, part.y)

    def of(self, rows: Tensor) -> Passes:
        """Passes over some samples as a batch of their own, in micro-batches as even as can be.

        Args:
            rows: their places in this rank's share, int64 on the CPU, ascending.
        """
        there = [part.rows(rows) for part in self.parts]
        x = torch.cat([part.x.detach()[here] for part, here in zip(self.parts, there, strict=True)])
        y = torch.cat([part.y[here] for part, here in zip(self.parts, there, strict=True)])
        count = max(1, -(-len(rows) // max(len(self.parts[0].y), 1)))
        share, start, stop = copy(self), RandomState(self._devices), 0
        share.size, share.parts = len(rows), []
        split = (torch.tensor_split(one, count) for one in (x, y, rows))
        for xs, ys, places in zip(*split, strict=True):
            stop += len(ys)
            share.parts.append(MicroBatch(slice(stop - len(ys), stop), xs.detach(), ys, start, places))
        return share

    def apart(self) -> bool:
        """Whether the input gradient of sum_i l_i costs a pass where the weights are unequal; known before any pass."""
        x = self.parts[0].x
        return has_moving_batch_norm(self.model) or _in_fp16(x, x)

    def losses_at(self, part: MicroBatch, x: Tensor) -> Tensor:
        """Losses at other inputs, detached. Cost: 1 F."""
        with torch.no_grad():
            return self.again(part, x)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        try:
            logits = self.model(x)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise UserError("BatchNorm in training mode needs two samples or more in a batch") from error
            raise
        losses = self.loss(logits, y)
        if losses.shape != (len(x),) or not losses.is_floating_point():
            raise UserError(
                f"the loss must be one floating-point number per sample, shape ({len(x)},), "
                f'not {losses.dtype} of shape {tuple(losses.shape)}; torch\'s losses take reduction="none"'
            )
        return losses

    def objective(self, part: MicroBatch, losses: Tensor, weights: Tensor | None) -> Tensor:
        """This part's share of sum_i v_i l_i / sum_i v_i; ``weights`` are the whole batch's, None for equal ones."""
        if len(self.parts) == self.ranks.count == 1:
            return weighted_mean(losses, weights)
        if weights is None:
            return losses.sum() / self.size
        return (self.ranks.own(weights)[part.place] * losses).sum() / weights.sum()

    def gradient(self, objective: Tensor, inputs: Sequence[Tensor] | None = None) -> Gradients:
        """Gradient of an objective in the parameters, or in ``inputs``; frees the graph."""
        inputs = self.params if inputs is None else inputs
        if self._scale is None:
            return gradient_of(objective, inputs)
        gradient = gradient_of(objective * self._scale, inputs)
        torch._foreach_mul_(present(gradient), 1 / self._scale)
        return gradient

    def gradient_again(self, weights: Tensor | None) -> Gradients:
        """Gradient of the objective in the parameters, wherever they are now. Cost: 3 F."""
        total: Gradients = []
        for part in self.parts:
            with frozen_statistics(self.model):  # in the backward pass too, which checkpointing computes anew from
                add_gradients(total, self.gradient(self.objective(part, self.again(part), weights)))
        self.share(total)
        return total

    def share(self, gradient: Gradients) -> None:
        """From the gradient of this rank's part of the objective to that of the whole, in place; unless ``apart``."""
        if not self._apart:
            self.ranks.add_up(gradient)
        elif self.ranks.count > 1:
            torch._foreach_mul_(present(gradient), self.ranks.count)

    def gather(self, own: Tensor, places: Tensor | None = None) -> Tensor:
        """One number of each sample of the batch, or of those at ``places``, from those of this rank's share."""
        if self.ranks.count == 1:
            return own
        return self.ranks.gather(own, torch.arange(self.size) if places is None else places)

    def input_gradient(self, part: MicroBatch, losses: Tensor) -> Tensor:
        """Gradient of sum_i l_i in the inputs, shape of ``part.x``; keeps the graph. Cost: 1 F."""
        factor = None if self._scale is None else self._scale / self.size
        total = losses.sum() if factor is None else losses.sum() * factor
        gradient = torch.autograd.grad(total, part.x, retain_graph=True)[0]
        return gradient if factor is None else gradient / factor

    def both_gradients(self, part: MicroBatch, losses: Tensor, weights: Tensor | None) -> tuple[Gradients, Tensor]:
        """Gradient of this part's objective in the parameters, and of sum_i l_i in the inputs; frees the graph.

        Both come from one backward pass where l_i depends on x_i alone, or all weights are equal: the objective's input
        gradient is v_i / sum v times that of l_i. Unequal weights cost an input gradient of their own, 1 F, where
        BatchNorm in training mode ties every loss to every input, or where fp16 would lose the small ones.
        """
        objective = self.objective(part, losses, weights)
        if not self.needs_input_gradient:
            return self.gradient(objective), part.x
        if weights is not None and (has_moving_batch_norm(self.model) or _in_fp16(losses, part.x)):
            apart = self.input_gradient(part, losses)
            return self.gradient(objective), apart
        gradient = self.gradient(objective, [*self.params, part.x])
        of_objective = gradient.pop()
        if of_objective is None:
            return gradient, torch.zeros_like(part.x)
        if weights is None:
            return gradient, of_objective * self.size
        factor = weights.sum() / self.ranks.own(weights)[part.place]
        return gradient, of_objective * factor.view(-1, *[1] * (part.x.ndim - 1))


def _in_fp16(losses: Tensor, x: Tensor) -> bool:
    """Whether some of the pass was computed in fp16, whose smallest number is 6e-8."""
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return autocast or torch.float16 in (losses.dtype, x.dtype)
