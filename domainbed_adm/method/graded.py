"""The gradient of a batch at the parameters, with weights known beforehand or made from the batch's own scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from domainbed_adm.method.difficulty import rank_correlation
from domainbed_adm.method.gradients import Gradients, add_gradients
from domainbed_adm.method.passes import MicroBatch, Passes, weighted_mean

#: weighting "memory": weight of a sample whose curriculum weight is 0. Small, but the gradient of its loss in x, which
#: the next score needs, can be divided by it again and keeps its sign.
MEMORY_FLOOR = 1e-6


@dataclass
class FirstPass:
    """What the first pass leaves.

    Attributes:
        gradient: of the objective, in the parameters.
        losses: of the whole batch, as all that follows: shape (B,), detached.
        scores: of the difficulty, shape (B,), or of a refreshed share, shape (k,); None without one.
        rows: places in the batch of the refreshed share, int64 on the CPU, shape (k,); None where all were scored.
        index: which sample each score is of, int64 on the CPU; None where that is not known.
        used: the scores that ``exact`` is compared with; None for ``scores``.
        exact: the scores that estimated or remembered ones stand for, shape of ``used``; None where not computed.
        own_weights: of the first pass, shape (B,); None for equal ones.
        weights: of the second pass, likewise.
    """

    gradient: Gradients
    losses: Tensor
    scores: Tensor | None = None
    rows: Tensor | None = None
    index: Tensor | None = None
    used: Tensor | None = None
    exact: Tensor | None = None
    own_weights: Tensor | None = None
    weights: Tensor | None = None

    def figures(self) -> dict[str, Tensor]:
        """The step's figures that are known by now, as tensors of shape ()."""
        figures = {"loss": weighted_mean(self.losses, self.own_weights)}
        if self.scores is not None and self.weights is not None:
            figures["difficulty_mean"] = self.scores.mean()
            figures["difficulty_std"] = self.scores.std(correction=0)
            figures["kept_fraction"] = (self.weights > MEMORY_FLOOR).to(self.weights.dtype).mean()
        if self.scores is not None and self.exact is not None:
            figures["adm_rank_correlation"] = rank_correlation(
                self.scores if self.used is None else self.used, self.exact
            )
        return figures


#: Scores of a part or of a share of it, and the exact ones of the part; None where there are none.
Scores = tuple["Tensor | None", "Tensor | None"]
Score = Callable[[MicroBatch, Tensor, Callable[[], Tensor]], Scores]


def graded(passes: Passes, weights: Tensor | None, score: Score | None = None) -> FirstPass:
    """The gradient with weights known beforehand, part by part, and scores from the same passes, of this rank's."""
    gradient: Gradients = []
    losses, scores = [], []
    for part in passes.parts:
        graph = passes.clean(part)
        losses.append(graph.detach())
        of_part, input_gradient = passes.both_gradients(part, graph, weights)
        del graph  # frees what autograd kept, before the next forward pass
        add_gradients(gradient, of_part)
        del of_part
        if score is not None:
            scores.append(score(part, losses[-1], lambda here=input_gradient: here))  # type: ignore[misc]
    joined, exact = _joined(passes, scores)
    passes.share(gradient)
    return FirstPass(gradient, passes.gather(torch.cat(losses)), joined, exact=exact, own_weights=weights)


def scored_then_graded(passes: Passes, score: Score, weigh: Callable[[Tensor], Tensor]) -> FirstPass:
    """Scores of all parts first, one ranking over the whole batch, then its gradient."""
    losses, scores = [], []
    for part in passes.parts:
        graph = passes.clean(part)
        losses.append(graph.detach())
        scores.append(score(part, losses[-1], partial(passes.input_gradient, part, graph)))
        if len(passes.parts) > 1:
            del graph  # before the next part's forward pass
    joined, exact = _joined(passes, scores)
    assert joined is not None
    joined = passes.gather(joined)
    weights = weigh(joined)
    if len(passes.parts) == 1:
        gradient = passes.gradient(passes.objective(part, graph, weights))
        passes.share(gradient)
    else:
        gradient = passes.gradient_again(weights)
    of_all = passes.gather(torch.cat(losses))
    return FirstPass(gradient, of_all, joined, exact=exact, own_weights=weights, weights=weights)


def _joined(passes: Passes, scores: Sequence[Scores]) -> Scores:
    """Scores of this rank's parts, and exact ones of all ranks', each as one tensor; None where there are none."""
    of_parts = [part for part, _ in scores if part is not None]
    exact = [reference for _, reference in scores if reference is not None]
    return torch.cat(of_parts) if of_parts else None, passes.gather(torch.cat(exact)) if exact else None
