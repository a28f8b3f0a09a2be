"""One training step: difficulty, curriculum and flatness wired together, for any PyTorch loop.

The clean pass is the only one that moves BatchNorm statistics and the global random state; every other pass repeats its
dropout masks (*chosen*: so both passes of a flatness rule see one objective, and zero radius is exactly the base).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed_adm.errors import NonFiniteError, UserError, lookup
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.curriculum import Curriculum, within_domains
from domainbed_adm.method.difficulty import ADM, Difficulty, Probe, rank_correlation
from domainbed_adm.method.flatness import Flatness, Plain
from domainbed_adm.method.gradients import Gradients, gradient_of, joint_norm
from domainbed_adm.method.memory import recall, remember
from domainbed_adm.method.side_effects import RandomState, has_moving_batch_norm, still_batch_norm
from domainbed_adm.method.state import StepState

LossFunction = Callable[[Tensor, Tensor], Tensor]

#: weighting "memory": weight of a sample whose curriculum weight is 0. Small, but the gradient of its loss in x, which
#: the next score needs, can be divided by it again and keeps its sign.
MEMORY_FLOOR = 1e-6
#: The linear ADM estimator is compared with the exact one every so many steps.
CORRELATION_EVERY = 50


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-sample cross-entropy in nats, shape (B,)."""
    return F.cross_entropy(logits, y, reduction="none")


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """sum_i v_i l_i / sum_i v_i; the plain mean where ``weights`` is None."""
    return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()


@dataclass
class _CleanPass:
    """The clean pass: inputs, labels, losses with their graph, and the random state it began with."""

    x: Tensor
    y: Tensor
    losses: Tensor
    random_state: RandomState


@dataclass
class _First:
    """What the first pass gives: the objective's value and gradient, the second pass's weights, the step's figures."""

    objective: Tensor
    gradient: Gradients
    weights: Tensor | None
    figures: dict[str, Tensor]


class TrainingStep:
    """Trains ``model`` by one batch a call; ``state`` (an ``nn.Module``) holds all that lasts from call to call.

    Example: SAM with the SSPL curriculum by ADM, in a loop of one's own.

    >>> import torch
    >>> from domainbed_adm import ADM, SAM, SSPL, TrainingStep
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.rand(64, 1, 8, 8), torch.randint(10, (64,))
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    >>> step = TrainingStep(model, optimizer, SAM(rho=0.05), SSPL(), ADM(), total_steps=100)
    >>> figures = [step(x, y) for _ in range(100)]
    >>> figures[-1]["loss"] < figures[0]["loss"]
    True

    Cost in units of F, one forward pass: ``methods.Method.passes``.

    Args:
        model: maps inputs to logits.
        optimizer: the base optimizer; its parameters that require a gradient are trained.
        flatness: None for the base optimizer alone.
        curriculum: None for equal weights; goes with ``difficulty``.
        difficulty: what the curriculum ranks by.
        total_steps: progress p = step / (total_steps - 1), 1 from then on; needed by a curriculum.
        weighting: "both": scores of this batch weight both passes. "descent": the first pass is unweighted and yields
            the input gradients for free, the weights are in the second pass only; without a second pass, as "both".
            "memory": a sample is weighted by the score it had when last seen, 1 if never; needs ``index``; with
            BatchNorm in training mode it costs 1 F more.
        scope: "batch" ranks over the whole batch, "domain" within each source domain; needs ``domain_sizes``.
        loss: per-sample loss of (logits, y), shape (B,), >= 0.
        state: where to keep the step count, F-SAM's mean and the memory; a new one where None.

    Raises:
        UserError: the parts do not go together, or a name is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        flatness: Flatness | None = None,
        curriculum: Curriculum | None = None,
        difficulty: Difficulty | None = None,
        *,
        total_steps: int | None = None,
        weighting: str = "both",
        scope: str = "batch",
        loss: LossFunction = cross_entropy,
        state: StepState | None = None,
    ) -> None:
        lookup(dict.fromkeys(WEIGHTINGS), weighting, "weighting")
        lookup({"batch": None, "domain": None}, scope, "curriculum scope")
        if (curriculum is None) != (difficulty is None):
            raise UserError("a curriculum and a difficulty go together: give both or neither")
        if curriculum is not None and (total_steps is None or total_steps < 1):
            raise UserError(f"a curriculum needs total_steps >= 1 to know its progress, not {total_steps}")
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.flatness, self.curriculum, self.difficulty = flatness or Plain(), curriculum, difficulty
        self.total_steps, self.scope = total_steps, scope
        single_pass = weighting == "descent" and self.flatness.passes == 1
        self.weighting = "both" if single_pass else weighting
        self.state = StepState() if state is None else state

    @property
    def progress(self) -> float:
        """Progress p of the next call, in [0, 1]."""
        return min(self.state.update_count / max((self.total_steps or 1) - 1, 1), 1.0)

    def __call__(
        self, x: Tensor, y: Tensor, domain_sizes: Sequence[int] | None = None, index: Tensor | None = None
    ) -> dict[str, float]:
        """Do one step; overwrites ``.grad`` of the trained parameters. The device is asked once, for all figures.

        Args:
            x: inputs, shape (B, ...), the minibatches of all domains concatenated.
            y: labels, shape (B,).
            domain_sizes: number of samples of each domain, in order; for scope "domain".
            index: int64 on the CPU, shape (B,): which sample of the training set each one is; for weighting "memory".

        Returns:
            Figures of the step: ``loss`` (the objective of the first pass), ``gradient_norm`` (of what the optimizer
            was handed) and, with a curriculum, ``difficulty_mean``, ``difficulty_std``, ``kept_fraction`` (share of
            samples with weight > 0), and every 50 steps of the linear ADM estimator its ``adm_rank_correlation`` with
            the exact one (NaN where scores are all equal).

        Raises:
            UserError: ``domain_sizes`` or ``index`` is needed and not given.
            NonFiniteError: a loss, score or gradient is not finite; the parameters are what they were.
        """
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        clean = self._clean_pass(x, y)
        random_state = clean.random_state
        first = self._first_pass(clean, params, domain_sizes, index)
        del clean  # frees the graph

        def gradient_here() -> Gradients:
            with still_batch_norm(self.model), random_state.replayed():
                return gradient_of(weighted_mean(self.loss(self.model(x), y), first.weights), params)

        handed = self.flatness(params, first.gradient, gradient_here, self.state)
        present = [gradient for gradient in handed if gradient is not None]
        norm = {"gradient_norm": joint_norm(present)} if present else {}
        figures = _finite({"loss": first.objective.detach(), **norm, **first.figures})
        for param, gradient in zip(params, handed, strict=True):
            param.grad = gradient
        self.optimizer.step()
        self.state.update_count += 1
        return figures

    def _clean_pass(self, x: Tensor, y: Tensor) -> _CleanPass:
        if self.difficulty is not None and self.difficulty.needs_input_gradient:
            x = x.detach().requires_grad_()
        random_state = RandomState(x.device)
        return _CleanPass(x, y, self.loss(self.model(x), y), random_state)

    def _first_pass(
        self, clean: _CleanPass, params: list[Tensor], domain_sizes: Sequence[int] | None, index: Tensor | None
    ) -> _First:
        if self.curriculum is None:
            objective = clean.losses.mean()
            return _First(objective, gradient_of(objective, params), None, {})
        if self.scope == "domain" and domain_sizes is None:
            raise UserError('scope "domain" needs domain_sizes')
        if self.weighting == "both":
            return self._both(clean, params, domain_sizes)
        if self.weighting == "descent":
            return self._descent(clean, params, domain_sizes)
        if index is None:
            raise UserError('weighting "memory" needs index, the identity of each sample; this loop does not give it')
        return self._memory(clean, params, domain_sizes, index)

    def _both(self, clean: _CleanPass, params: list[Tensor], domain_sizes: Sequence[int] | None) -> _First:
        def input_gradient() -> Tensor:
            return torch.autograd.grad(clean.losses.sum(), clean.x, retain_graph=True)[0]

        scores, figures = self._score(clean, input_gradient)
        weights = self._weigh(scores, domain_sizes)
        objective = weighted_mean(clean.losses, weights)
        return _First(objective, gradient_of(objective, params), weights, figures | _figures(scores, weights))

    def _descent(self, clean: _CleanPass, params: list[Tensor], domain_sizes: Sequence[int] | None) -> _First:
        objective = clean.losses.mean()
        gradient, input_gradient = self._gradients(clean, objective, None, params)
        scores, figures = self._score(clean, lambda: input_gradient)
        weights = self._weigh(scores, domain_sizes)
        return _First(objective, gradient, weights, figures | _figures(scores, weights))

    def _memory(
        self, clean: _CleanPass, params: list[Tensor], domain_sizes: Sequence[int] | None, index: Tensor
    ) -> _First:
        remembered = recall(self.state, index, clean.losses.detach())
        weights = self._weigh_seen(remembered, domain_sizes).clamp(min=MEMORY_FLOOR)
        objective = weighted_mean(clean.losses, weights)
        gradient, input_gradient = self._gradients(clean, objective, weights, params)
        scores, figures = self._score(clean, lambda: input_gradient)
        remember(self.state, index, scores)
        return _First(objective, gradient, weights, figures | _figures(scores, weights))

    def _gradients(
        self, clean: _CleanPass, objective: Tensor, weights: Tensor | None, params: list[Tensor]
    ) -> tuple[Gradients, Tensor]:
        """Gradient of the objective in the parameters, and of sum_i l_i in the inputs.

        Both come from one backward pass where l_i depends on x_i alone, or all weights are equal: the objective's input
        gradient is v_i / sum v times that of l_i. BatchNorm in training mode ties every loss to every input; unequal
        weights then cost an input gradient of their own, 1 F.
        """
        if not clean.x.requires_grad:
            return gradient_of(objective, params), clean.x
        if weights is not None and has_moving_batch_norm(self.model):
            apart = torch.autograd.grad(clean.losses.sum(), clean.x, retain_graph=True)[0]
            return gradient_of(objective, params), apart
        gradient = gradient_of(objective, [*params, clean.x])
        of_objective = gradient.pop()
        if of_objective is None:
            return gradient, torch.zeros_like(clean.x)
        v = torch.ones_like(clean.losses) if weights is None else weights
        return gradient, of_objective * (v.sum() / v).view(-1, *[1] * (clean.x.ndim - 1))

    def _score(self, clean: _CleanPass, input_gradient: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores, and the linear estimator's correlation with the exact ADM on a sample of steps."""
        assert self.difficulty is not None
        probe = Probe(clean.x.detach(), clean.losses.detach(), cache(input_gradient), partial(self._losses_at, clean))
        scores = self.difficulty(probe).detach()
        figures = {}
        sampled = self.state.update_count % CORRELATION_EVERY == 0
        if sampled and isinstance(self.difficulty, ADM) and self.difficulty.estimator == "linear":
            figures["adm_rank_correlation"] = rank_correlation(scores, self.difficulty.exact(probe))
        return scores, figures

    def _losses_at(self, clean: _CleanPass, x: Tensor) -> Tensor:
        with torch.no_grad(), still_batch_norm(self.model), clean.random_state.replayed():
            return self.loss(self.model(x), clean.y)

    def _weigh(self, scores: Tensor, domain_sizes: Sequence[int] | None) -> Tensor:
        assert self.curriculum is not None
        if self.scope == "domain" and domain_sizes is not None:
            return within_domains(self.curriculum, scores, self.progress, domain_sizes)
        return self.curriculum(scores, self.progress)

    def _weigh_seen(self, remembered: Tensor, domain_sizes: Sequence[int] | None) -> Tensor:
        """Weights of the samples that have a score, 1 for the others. Costs one host sync."""
        seen = (remembered >= 0).cpu()
        sizes = None if domain_sizes is None else [int(part.sum()) for part in seen.split(list(domain_sizes))]
        place = seen.nonzero().squeeze(1).to(remembered.device)
        weights = torch.ones_like(remembered)
        if len(place):
            weights[place] = self._weigh(remembered[place], sizes)
        return weights


def _finite(figures: dict[str, Tensor]) -> dict[str, float]:
    """The figures on the host, in one transfer.

    Raises:
        NonFiniteError: one of them that must be is not finite.
    """
    values = dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))
    judged = {name: value for name, value in values.items() if name != "adm_rank_correlation"}
    wrong = [f"{name} {value}" for name, value in judged.items() if not math.isfinite(value)]
    if wrong:
        raise NonFiniteError(f"not finite: {', '.join(wrong)}")
    return values


def _figures(scores: Tensor, weights: Tensor) -> dict[str, Tensor]:
    return {
        "difficulty_mean": scores.mean(),
        "difficulty_std": scores.std(correction=0),
        "kept_fraction": (weights > MEMORY_FLOOR).to(weights.dtype).mean(),
    }
