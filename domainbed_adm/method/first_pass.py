"""The first pass of a step with a curriculum: gradient, difficulty of each sample, and its weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial

import torch
from torch import Tensor

from domainbed_adm.errors import UserError
from domainbed_adm.method.curriculum import Curriculum, hardest_first, within_domains
from domainbed_adm.method.difficulty import Difficulty, Probe
from domainbed_adm.method.graded import MEMORY_FLOOR, FirstPass, Score, Scores, graded, scored_then_graded
from domainbed_adm.method.passes import MicroBatch, Passes
from domainbed_adm.method.side_effects import frozen_statistics, has_moving_batch_norm
from domainbed_adm.method.state import RememberedScores


@dataclass
class Weighting:
    """Computes the first pass of a curriculum: which passes are weighted, and by scores of which step.

    A difficulty with ``refresh`` r < 1 scores k = ceil(r B) samples of a step, those scored longest ago. A sample that
    never was has weight 1. Where a sample's loss depends on its own input alone, the input gradient comes free with the
    first pass, and a forward pass of the share is all: r F. With BatchNorm in training mode, noise (dropout) or fp16
    the share is passed as a batch of its own, k >= 2 with BatchNorm: clean pass, input gradient and FGSM copy, 3 r F.
    BatchNorm then normalises by the share's statistics, in the clean pass and in the FGSM copy alike, moves nothing,
    and the scores are those of a batch of k: see ``benchmarks/refresh.md`` for how far that keeps the order.

    Attributes:
        difficulty: scores the samples.
        curriculum: weights them.
        mode: "both", "descent" or "memory"; see ``TrainingStep``.
        scope: "batch" or "domain".
        remembered: scores from earlier steps, for mode "memory".
        order: "easy_first", or "hard_first": the curriculum sees the order turned around.
        warmup: share of progress, in [0, 1), in which all weights are 1 and nothing is scored, but what is to be
            remembered. The curriculum's progress goes from 0 to 1 in the rest.
        smoothing: share in [0, 1) of the older mean in a remembered score.

    Raises:
        UserError: the difficulty is to be refreshed or smoothed, and the mode is not "memory"; or "hard_first" is
            asked of a curriculum that looks at more than the order.
    """

    difficulty: Difficulty
    curriculum: Curriculum
    mode: str
    scope: str
    remembered: RememberedScores
    order: str = "easy_first"
    warmup: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.smoothing and self.mode != "memory":
            raise UserError(
                f"difficulty_smoothing {self.smoothing:g} is of scores from earlier steps, which only weighting "
                '"memory" uses: set difficulty_smoothing to 0 or weighting to "memory"'
            )
        if self.order == "hard_first" and getattr(self.curriculum, "absolute", False):
            raise UserError(
                "curriculum_order hard_first turns the order around, and spl_mode threshold goes by the scores' size: "
                "set spl_mode to quantile"
            )
        share = getattr(self.difficulty, "refresh", 1)
        if share != 1 and self.mode != "memory":
            raise UserError(
                f'adm_refresh {share:g} keeps scores from earlier steps, which only weighting "memory" uses: '
                'set adm_refresh to 1 or weighting to "memory"'
            )

    def first_pass(
        self,
        passes: Passes,
        progress: float,
        domain_sizes: Sequence[int] | None,
        index: Tensor | None,
        step: int,
        with_exact: bool,
    ) -> FirstPass:
        """One clean pass over the batch, and what the difficulty costs.

        Args:
            passes: the batch and the model.
            progress: in [0, 1].
            domain_sizes: number of samples of each domain in the whole batch; for scope "domain".
            index: which samples they are, of this rank's share; for mode "memory", and for difficulties that ask.
            step: how many steps were done before.
            with_exact: whether estimated or refreshed scores are to be compared with exact ones.

        Raises:
            UserError: ``domain_sizes`` or ``index`` is needed and not given, or does not fit the batch.
        """
        if self.scope == "domain" and domain_sizes is None:
            raise UserError('scope "domain" needs domain_sizes')
        if domain_sizes is not None and sum(domain_sizes) != passes.size:
            raise UserError(f"domain_sizes {list(domain_sizes)} must sum to the {passes.size} samples of the batch")
        if getattr(self.difficulty, "whole_batch", False) and not len(passes.parts) == passes.ranks.count == 1:
            raise UserError(
                "adm_delta batch_mean is the mean of a batch: it goes neither with micro_batch nor with several devices"
            )
        warm = progress < self.warmup
        if warm and self.mode != "memory":
            passes.needs_input_gradient = False
            return graded(passes, None)
        score = partial(self._score, passes, (step, index), with_exact)
        pace = (progress - self.warmup) / (1 - self.warmup)

        def weigh(scores: Tensor, sizes: Sequence[int] | None) -> Tensor:
            if warm:
                return torch.ones_like(scores)
            if self.scope == "domain" and sizes is not None:
                return within_domains(self._weights, scores, pace, sizes)
            return self._weights(scores, pace)

        if self.mode == "both":
            return scored_then_graded(passes, score, lambda scores: weigh(scores, domain_sizes))
        if self.mode == "descent":
            first = graded(passes, None, score)
            assert first.scores is not None
            first.scores = passes.gather(first.scores)
            first.weights = weigh(first.scores, domain_sizes)
            return first
        return self._by_memory(passes, weigh, score, domain_sizes, index, step, with_exact)

    def _by_memory(
        self,
        passes: Passes,
        weigh: Callable[[Tensor, Sequence[int] | None], Tensor],
        score: Score,
        domain_sizes: Sequence[int] | None,
        index: Tensor | None,
        step: int,
        with_exact: bool,
    ) -> FirstPass:
        """Weighted by the scores of when samples were last seen.

        Raises:
            UserError: ``index`` is not given, or does not fit the batch.
        """
        if index is None:
            raise UserError('weighting "memory" needs index, the identity of each sample; this loop does not give it')
        here = sum(len(part.y) for part in passes.parts)
        if index.shape != (here,) or here == 0 or int(index.min()) < 0:
            raise UserError(f"index must be {here} numbers >= 0, one per sample, not of shape {tuple(index.shape)}")
        samples, index = index, passes.gather(index)
        remembered, seen = self.remembered.recall(index, passes.parts[0].x)
        place = seen.nonzero().squeeze(1).to(remembered.device, non_blocking=True)
        weights = _weights_of_remembered(weigh, remembered, seen, place, domain_sizes)
        share = getattr(self.difficulty, "refresh", 1)
        if share == 1:
            first = graded(passes, weights, score)
            assert first.scores is not None
            first.scores, first.index = passes.gather(first.scores), index
        else:
            first = self._refreshed(passes, weights, (step, samples), index, share, with_exact)
            if first.exact is not None:
                first.used, first.exact = remembered[place], first.exact[place]
        first.weights = weights
        return first

    def _weights(self, scores: Tensor, progress: float) -> Tensor:
        return self.curriculum(hardest_first(scores) if self.order == "hard_first" else scores, progress)

    def _refreshed(
        self,
        passes: Passes,
        weights: Tensor,
        when: tuple[int, Tensor],
        index: Tensor,
        share: float,
        with_exact: bool,
    ) -> FirstPass:
        """The gradient, new scores of the share of the batch whose scores are oldest, and exact ones of all."""
        apart = passes.apart()
        count = math.ceil(Fraction(str(share)) * passes.size)  # of the decimal number: 0.1 of 30 is 3
        if has_moving_batch_norm(passes.model):
            count = max(count, min(2, passes.size))
        rows = self.remembered.oldest(index, count)
        own = passes.ranks.own_places(rows)
        passes.needs_input_gradient = passes.needs_input_gradient and (with_exact or not apart)
        scores_of = partial(self._score, passes, when, False)

        def score(part: MicroBatch, losses: Tensor, input_gradient: Callable[[], Tensor]) -> Scores:
            nonlocal apart
            apart = apart or part.random_state.moved()
            exact = scores_of(part, losses, input_gradient)[0] if with_exact else None
            here = part.rows(own)
            if apart or not len(here):
                return None, exact
            x, y, places = part.x.detach()[here], part.y[here], part.within(own)
            of_share = MicroBatch(part.place, x, y, part.random_state, places)
            return scores_of(of_share, losses[here], lambda: input_gradient()[here])[0], exact

        first = graded(passes, weights, score)
        if apart:
            first.scores = self._scored_apart(passes.of(own), when)
        elif first.scores is None:  # all of them are other ranks'
            first.scores = first.losses.new_empty(0)
        first.scores = passes.gather(first.scores, rows)
        first.rows, first.index = rows, index[rows]
        return first

    def _scored_apart(self, passes: Passes, when: tuple[int, Tensor]) -> Tensor:
        """Scores of a share as a batch of its own, shape (k,). Nothing moves, in backward passes too. Cost: 3 r F."""
        scores = []
        for part in passes.parts:
            if self.difficulty.needs_input_gradient:
                part.x.requires_grad_()
            with frozen_statistics(passes.model):
                graph = passes.again(part)
                gradient = partial(passes.input_gradient, part, graph)
                scores.append(self._score(passes, when, False, part, graph.detach(), gradient)[0])
            del graph, gradient
        return torch.cat(scores)

    def _score(
        self,
        passes: Passes,
        when: tuple[int, Tensor | None],
        with_exact: bool,
        part: MicroBatch,
        losses: Tensor,
        input_gradient: Callable[[], Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Scores of a part, and the exact ones of an estimated difficulty; ``when``: the step and the share's index."""
        (step, index), places = when, part.places
        samples = None if index is None else index[places]
        losses_at = partial(passes.losses_at, part)
        there = passes.ranks.places(places)
        probe = Probe(part.x.detach(), losses, cache(input_gradient), losses_at, step, samples, there)
        scores = self.difficulty(probe).detach()
        exact = getattr(self.difficulty, "reference", None) if with_exact else None
        return scores, None if exact is None else exact(probe)


def _weights_of_remembered(
    weigh: Callable[[Tensor, Sequence[int] | None], Tensor],
    remembered: Tensor,
    seen: Tensor,
    place: Tensor,
    domain_sizes: Sequence[int] | None,
) -> Tensor:
    """Weights of the samples that have a score, 1 for the others. The device is not asked."""
    sizes = None if domain_sizes is None else [int(part.sum()) for part in torch.split(seen, list(domain_sizes))]
    weights = torch.ones_like(remembered)
    if len(place):
        weights[place] = weigh(remembered[place], sizes)
    return weights.clamp(min=MEMORY_FLOOR)
