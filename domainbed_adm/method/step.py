"""One training step: difficulty, curriculum and flatness wired together, for any PyTorch loop.

The clean pass is the only one that moves running statistics and the global random state; every other pass repeats its
random numbers. (Our choice: so both passes of a flatness rule see one objective, and zero radius is exactly the base.)
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from domainbed_adm.errors import NonFiniteError, UserError, lookup
from domainbed_adm.method.batch_norm import average_statistics
from domainbed_adm.method.cards import ASCENTS, ORDERS, WEIGHTINGS
from domainbed_adm.method.curriculum import Curriculum
from domainbed_adm.method.difficulty import Difficulty
from domainbed_adm.method.first_pass import Weighting
from domainbed_adm.method.flatness import Flatness, Plain, Point
from domainbed_adm.method.graded import FirstPass, graded
from domainbed_adm.method.gradients import joint_norm, present
from domainbed_adm.method.on_device import skips_on_device, step_unless
from domainbed_adm.method.passes import LossFunction, Passes, cross_entropy
from domainbed_adm.method.ranks import ALONE, Ranks
from domainbed_adm.method.state import RememberedScores, StepState
from domainbed_adm.method.step_checks import check_length, check_trainable

#: An estimated difficulty is compared with the exact one every so many steps.
CORRELATION_EVERY = 50
#: Figures that may be NaN; every other one must be finite.
MAY_BE_NAN = ("adm_rank_correlation",)


@dataclass
class _Computed:
    """What ``backward`` leaves for ``apply``: figures on the device, and what to keep where they are finite."""

    figures: dict[str, Tensor]
    rule_state: dict[str, Tensor]
    clean_loss: Tensor
    index: Tensor | None
    scores: Tensor | None
    scored_at: int | None


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
    >>> figures = [step(x, y) for _ in range(99)]
    >>> figures[-1]["loss"] < figures[0]["loss"]
    True

    The two halves of a step, here with the gradient clipped between them:

    >>> on_device = step.backward(x, y)
    >>> norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.1)
    >>> step.apply()["loss"] < figures[0]["loss"]
    True

    Call it within ``torch.autocast`` for mixed precision. Cost in units of F, one forward pass: ``Method.passes``.

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
            BatchNorm in training mode, and in fp16, it costs 1 F more. See ``Weighting`` for a share ``refresh``.
        flatness_start: share of ``total_steps`` in [0, 1) that is steps of the base optimizer alone, the curriculum
            going on meanwhile; the flatness rule begins after it, with an empty state. ``flatness_share`` is then among
            the figures: 1 where the rule made the step, else 0.
        scope: "batch" ranks over the whole batch, "domain" within each source domain; needs ``domain_sizes``.
        order: "easy_first", or as a control "hard_first": the curriculum sees the order turned around.
        warmup: share of the run in [0, 1) in which all weights are 1; the curriculum's whole pace comes after it.
        smoothing: weighting "memory": share in [0, 1) of the older mean in a sample's score.
        loss: per-sample loss of (logits, y), shape (B,), >= 0.
        state: where to keep the step count, F-SAM's mean and the remembered scores; a new one where None.
        micro_batch: samples of a pass, to save memory; gradients are summed, samples ranked over the whole batch. Equal
            to the whole batch for networks without BatchNorm and dropout. With weighting "both" it costs 1 F more.
        scaler: for fp16. Gradients are handed out unscaled. Where one overflows, the optimizer's step is skipped, only
            progress moves, and ``state["skipped_steps"]`` counts it. ``apply`` calls ``scaler.update()``: another
            optimizer that shares the scaler must do its step before ``backward``.
        ranks: the processes that train the model together, each of which is given its share of the batch, x[r::N] of
            rank r of N; all end with the same parameters, without a wrapper. A difficulty must then score each sample
            by itself. Not with ``micro_batch``.
        ascent: of several ranks: "global" moves to the top of the whole batch's ball, as one process would; "local"
            each rank to its share's, and the gradients there are averaged (m-sharpness: Foret et al., ICLR 2021,
            section 4.1); F-SAM's mean is then that of the ranks.

    Raises:
        UserError: the parts do not go together, a name is unknown, the model is wrapped for several processes, or the
            optimizer is LBFGS, which calls for losses itself.
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
        flatness_start: float = 0.0,
        scope: str = "batch",
        order: str = "easy_first",
        warmup: float = 0.0,
        smoothing: float = 0.0,
        loss: LossFunction = cross_entropy,
        state: StepState | None = None,
        micro_batch: int | None = None,
        scaler: torch.amp.GradScaler | None = None,
        ranks: Ranks = ALONE,
        ascent: str = "global",
    ) -> None:
        lookup(dict.fromkeys(WEIGHTINGS), weighting, "weighting")
        lookup(dict.fromkeys(ASCENTS), ascent, "ascent")
        lookup({"batch": None, "domain": None}, scope, "curriculum scope")
        lookup(dict.fromkeys(ORDERS), order, "curriculum order")
        if not (0 <= warmup < 1 and 0 <= smoothing < 1):
            raise UserError(f"warmup and smoothing must be in [0, 1), not {warmup:g} and {smoothing:g}")
        if (curriculum is None) != (difficulty is None):
            raise UserError("a curriculum and a difficulty go together: give both or neither")
        check_length(total_steps, curriculum is not None, flatness_start, micro_batch)
        check_trainable(model, optimizer)
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.flatness, self.difficulty = flatness or Plain(), difficulty
        self.total_steps, self.micro_batch = total_steps, micro_batch
        self.ranks, self.ascent = ranks, ascent
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.state = StepState() if state is None else state
        single_pass = weighting == "descent" and self.flatness.passes == 1
        self.weighting = "both" if single_pass else weighting
        self.smoothing = smoothing
        self._remembered = RememberedScores(self.state)
        self._weighting = (
            Weighting(difficulty, curriculum, self.weighting, scope, self._remembered, order, warmup, smoothing)
            if difficulty is not None and curriculum is not None
            else None
        )
        self._plain_steps = math.ceil(Fraction(str(flatness_start)) * (total_steps or 0))
        self._computed: _Computed | None = None

    @property
    def progress(self) -> float:
        """Progress p of the next step, in [0, 1]."""
        return min(self.state.update_count / max((self.total_steps or 1) - 1, 1), 1.0)

    def __call__(
        self, x: Tensor, y: Tensor, domain_sizes: Sequence[int] | None = None, index: Tensor | None = None
    ) -> dict[str, float]:
        """Do one step: :meth:`backward`, then :meth:`apply`. The device is asked once, for all figures.

        Args:
            x: inputs, shape (B, ...), the minibatches of all domains concatenated.
            y: labels, shape (B,).
            domain_sizes: number of samples of each domain, in order; for scope "domain".
            index: int64 on the CPU, shape (B,): which sample of the training set each one is; for weighting "memory".

        Returns:
            Figures of the step: ``loss`` (the objective of the first pass), ``gradient_norm`` (of what ``backward``
            left) and, with a curriculum, ``difficulty_mean``, ``difficulty_std``, ``kept_fraction`` (share of samples
            with weight > 0), and every 50 steps of an estimated or refreshed difficulty ``adm_rank_correlation``, that
            of the scores used with exact ones of this step (NaN where scores are all equal or none was used).

        Raises:
            UserError: ``domain_sizes`` or ``index`` is needed and not given, or the loss is not one number per sample.
            NonFiniteError: a loss, score or gradient is not finite; parameters, optimizer and state are what they were.
        """
        self.backward(x, y, domain_sizes, index)
        return self.apply()

    def backward(
        self, x: Tensor, y: Tensor, domain_sizes: Sequence[int] | None = None, index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Write into ``.grad`` what the base optimizer should be handed; ask the device nothing.

        Between this and :meth:`apply` gradients may be read or clipped. Arguments as of :meth:`__call__`.

        Returns:
            The figures of :meth:`__call__` as tensors of shape () on the device.

        Raises:
            UserError: as in :meth:`__call__`.
        """
        self._computed = None
        torch.clear_autocast_cache()  # it may hold weights cast before the last optimizer's step
        params = self._params()
        for param in params:
            param.grad = None  # so that the last step's gradients take no room beside this one's
        several = self.ranks.count > 1
        if several:
            if self.micro_batch is not None:
                raise UserError("micro_batch goes with one process: take more ranks instead")
            domain_sizes = self.ranks.batch_sizes([len(x)] if domain_sizes is None else domain_sizes)
        apart = several and self.ascent == "local"
        passes = Passes(
            self.model,
            self.loss,
            params,
            x,
            y,
            size=sum(domain_sizes) if several and domain_sizes else None,
            ranks=self.ranks,
            apart=apart,
            micro_batch=self.micro_batch,
            needs_input_gradient=self.difficulty is not None and self.difficulty.needs_input_gradient,
            scaler=self.scaler,
        )
        plain = self.state.update_count < self._plain_steps
        first = self._first_pass(passes, plain, domain_sizes, index)
        figures = first.figures()
        # Where the first gradient overflows, the whole step counts as overflowed, whatever the second pass gives.
        spoilt = None if self.scaler is None else 0.0 * joint_norm(present(first.gradient))
        rule_state: dict[str, Tensor] = {}
        again = partial(passes.gradient_again, first.weights)
        rule, state = Plain() if plain else self.flatness, ChainMap(rule_state, self.state)
        handed = rule(Point(params, first.gradient, again, state, self.model, self._rate_share()))
        if apart:
            self.ranks.average([*handed, *rule_state.values(), spoilt])
        average_statistics(self.model, self.ranks)
        if self._plain_steps:
            figures["flatness_share"] = (torch.zeros_like if plain else torch.ones_like)(figures["loss"])
        if parts := present(handed):
            figures["gradient_norm"] = joint_norm(parts) + (0.0 if spoilt is None else spoilt)
        for param, gradient in zip(params, handed, strict=True):
            param.grad = gradient
        scored_at = None if first.rows is None else self.state.update_count
        self._computed = _Computed(figures, rule_state, first.losses.mean(), first.index, first.scores, scored_at)
        return figures

    def _first_pass(
        self, passes: Passes, plain: bool, domain_sizes: Sequence[int] | None, index: Tensor | None
    ) -> FirstPass:
        weighting, count = self._weighting, self.state.update_count
        if weighting is None:
            return graded(passes, None)
        if plain and weighting.mode == "descent":
            weighting = replace(weighting, mode="both")  # there is no second pass to weight
        with_exact = count % CORRELATION_EVERY == 0
        return weighting.first_pass(passes, self.progress, domain_sizes, index, count, with_exact)

    def apply(self) -> dict[str, float]:
        """Step the base optimizer with what stands in ``.grad``, and move progress.

        Optimizers that can be told on the device that a gradient is not finite (torch's with ``fused=True``) do their
        step before the host has read the figures, from their second step on; the others wait for the host. What was
        done to ``.grad`` since :meth:`backward` is not checked.

        Returns:
            The figures of :meth:`__call__`.

        Raises:
            UserError: there was no :meth:`backward` since the last call.
            NonFiniteError: as in :meth:`__call__`.
        """
        computed, self._computed = self._computed, None
        if computed is None:
            raise UserError("apply() steps with the gradients of backward(): call backward() first")
        stacked = torch.stack([*computed.figures.values(), computed.clean_loss])
        new = [param for param in self._params() if param.grad is not None and param not in self.optimizer.state]
        fused = (
            self.scaler is None
            and not new  # a step that is skipped would leave what it makes for them in disorder
            and skips_on_device(self.optimizer)
        )
        if fused:
            judged = [place for place, name in enumerate(computed.figures) if name not in MAY_BE_NAN]
            step_unless((~stacked[judged].isfinite().all()).float(), self.optimizer)
        *values, clean_loss = stacked.tolist()
        numbers = dict(zip(computed.figures, values, strict=True))
        wrong = {name: n for name, n in numbers.items() if name not in MAY_BE_NAN and not math.isfinite(n)}
        if wrong and (self.scaler is None or not math.isfinite(clean_loss)):
            raise NonFiniteError(f"not finite: {', '.join(f'{name} {number}' for name, number in wrong.items())}")
        if self.scaler is not None:
            # The scaler unscales, looks for overflow and skips the step itself, so it is handed scaled gradients; NaN
            # where a figure is not finite.
            factor = self.scaler.scale(torch.ones_like(stacked[0])) * (math.nan if wrong else 1.0)
            torch._foreach_mul_(present([param.grad for param in self._params()]), factor)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not fused:
            self.optimizer.step()
        torch.clear_autocast_cache()
        if wrong:
            for param in new:
                self.optimizer.state.pop(param, None)
            self.state["skipped_steps"] = self.state.get("skipped_steps", torch.zeros((), dtype=torch.int64)) + 1
        else:
            self.state.update(computed.rule_state)
            if computed.index is not None and computed.scores is not None:
                self._remembered.remember(computed.index, computed.scores, computed.scored_at, self.smoothing)
        self.state.update_count += 1
        return numbers

    def _rate_share(self) -> float:
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["initial_lr"]) if group.get("initial_lr") else 1.0

    def _params(self) -> list[Tensor]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]
