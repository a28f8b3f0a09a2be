"""The whole `update` of every method equals its stages applied by hand, from the slow twins alone."""

import math

import pytest
import torch
from torch import nn

from domainbed_adm import networks
from domainbed_adm.algorithms import Minibatch, get_algorithm_class
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.grid import METHODS
from tests.cases import CURRICULA, DIFFICULTIES, FLATNESS
from tests.reference.difficulty import oldest, sample_loss
from tests.toys import batch, parameters_of

STEPS = 4
SIZES = (5, 4, 3)
LEARNING_RATE = 0.05


class TinyFeaturizer(nn.Module):
    n_outputs = 6

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh())

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(networks, "Featurizer", lambda input_shape, hparams: TinyFeaturizer())


def build(name, **given):
    hparams = default_hparams(name, "Debug28") | {"lr": LEARNING_RATE, "total_steps": STEPS} | given
    algorithm = get_algorithm_class(name)((2, 4, 4), 3, len(SIZES), hparams).double()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in algorithm.network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) * 0.4)
    return algorithm


def data(step):
    """Twelve samples of which some were in the last batch too; sample k is the same at every step."""
    x, y = batch(30)
    index = torch.arange(12) + 5 * step
    index[3] = index[2]  # drawn twice
    return x[index], y[index], index


def minibatches(step):
    x, y, index = data(step)
    return [Minibatch(*parts) for parts in zip(x.split(SIZES), y.split(SIZES), index.split(SIZES), strict=True)]


class ByHand:
    """One parameter vector, updated by the twins; Adam is torch's, on that vector."""

    def __init__(self, method, weighting, scope, model, refresh=None, plain_steps=0):
        self.method, self.weighting, self.scope, self.model = method, weighting, scope, model
        self.refresh, self.scored_at, self.plain_steps = refresh, {}, plain_steps
        self.theta = nn.Parameter(parameters_of(model).clone())
        self.adam = torch.optim.Adam([self.theta], lr=LEARNING_RATE)
        named = model.named_parameters()
        self.kept = {"weights": [name.endswith("weight") for name, param in named for _ in range(param.numel())]}
        self.memory = {}

    def at(self, theta):
        nn.utils.vector_to_parameters(torch.as_tensor(theta, dtype=torch.float64), self.model.parameters())
        return self.model

    def gradient(self, theta, weights, x, y):
        model = self.at(theta)
        losses = [sample_loss(model, x[i], int(y[i])) for i in range(len(y))]
        objective = sum(v * loss for v, loss in zip(weights, losses, strict=True)) / sum(weights)
        return torch.cat([g.flatten() for g in torch.autograd.grad(objective, list(model.parameters()))]).tolist()

    def weigh(self, scores, progress, sizes):
        twin = CURRICULA[self.method.curriculum]
        if self.scope == "batch":
            return twin(scores, progress)
        parts = torch.tensor(scores, dtype=torch.float64).split(sizes)
        return [w for part in parts if len(part) for w in twin(part.tolist(), progress)]

    def remembered(self, index, progress):
        seen = [i for i, sample in enumerate(index) if sample in self.memory]
        domains = [d for d, size in enumerate(SIZES) for _ in range(size)]
        sizes = [sum(domains[i] == d for i in seen) for d in range(len(SIZES))]
        weights = [1.0] * len(index)
        if seen:
            found = self.weigh([self.memory[index[i]] for i in seen], progress, sizes)
            for i, weight in zip(seen, found, strict=True):
                weights[i] = max(weight, 1e-6)
        return weights

    def step(self, t):
        x, y, index = data(t)
        index = index.tolist()
        theta, progress = self.theta.detach().tolist(), t / (STEPS - 1)
        first_weights = weights = [1.0] * len(y)
        flatness = None if t < self.plain_steps else self.method.flatness
        if self.method.curriculum:
            rows = range(len(y)) if self.refresh is None else oldest(index, self.scored_at, self.refresh)
            if self.method.difficulty == "Random":
                scores = DIFFICULTIES["Random"]([index[i] for i in rows], t)
            else:
                twin = DIFFICULTIES[self.method.difficulty]
                scores = [twin(self.at(theta), x[i : i + 1], y[i : i + 1])[0] for i in rows]
            if self.weighting == "memory":
                weights = self.remembered(index, progress)
                for sample in {index[i] for i in rows}:
                    self.memory[sample] = max(s for s, i in zip(scores, rows, strict=True) if index[i] == sample)
                    self.scored_at[sample] = t
            else:
                weights = self.weigh(scores, progress, list(SIZES))
            unweighted = self.weighting == "descent" and flatness
            first_weights = first_weights if unweighted else weights
        first = self.gradient(theta, first_weights, x, y)
        rule = FLATNESS[flatness]
        handed = rule(theta, first, lambda there: self.gradient(there, weights, x, y), self.kept)
        self.theta.grad = torch.tensor(handed, dtype=torch.float64)
        self.adam.step()


@pytest.mark.parametrize("scope", ["batch", "domain"])
@pytest.mark.parametrize(("refresh", "count"), [(0.01, 1), (0.25, 3), (0.51, 7), (0.999, 12)])
def test_update_with_refreshed_scores_equals_its_stages_by_hand(tiny, refresh, count, scope):
    algorithm = build("SAM_SSPL_ADM", weighting="memory", curriculum_scope=scope, adm_refresh=refresh)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    nn.utils.vector_to_parameters(parameters_of(algorithm.network), model.parameters())
    hand = ByHand(METHODS["SAM_SSPL_ADM"], "memory", scope, model, count)
    for t in range(STEPS):
        algorithm.update(minibatches(t))
        hand.step(t)
        torch.testing.assert_close(
            parameters_of(algorithm.network), hand.theta.detach(), rtol=1e-9, atol=1e-10, msg=f"after step {t}"
        )
    scored_at = algorithm.step_state["difficulty_scored_at"]
    assert {i: t for i, t in enumerate(scored_at.tolist()) if t >= 0} == hand.scored_at


COMBINATIONS = [
    (name, weighting, scope)
    for name, method in METHODS.items()
    for weighting in (WEIGHTINGS if method.curriculum else ("both",))
    for scope in (("batch", "domain") if name.startswith(("SAM_", "SPL_Loss")) else ("batch",))
]


@pytest.mark.parametrize(("name", "weighting", "scope"), COMBINATIONS)
def test_update_equals_its_stages_by_hand(tiny, name, weighting, scope):
    algorithm = build(name, weighting=weighting, curriculum_scope=scope)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    nn.utils.vector_to_parameters(parameters_of(algorithm.network), model.parameters())
    hand = ByHand(METHODS[name], weighting, scope, model)
    for t in range(STEPS):
        figures = algorithm.update(minibatches(t))
        hand.step(t)
        torch.testing.assert_close(
            parameters_of(algorithm.network), hand.theta.detach(), rtol=1e-9, atol=1e-10, msg=f"after step {t}"
        )
        assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


def test_the_weightings_and_scopes_differ(tiny):
    """The combinations above are not one and the same computation."""
    ends = []
    for weighting in WEIGHTINGS:
        for scope in ("batch", "domain"):
            algorithm = build("SAM_SSPL_ADM", weighting=weighting, curriculum_scope=scope)
            for t in range(STEPS):
                algorithm.update(minibatches(t))
            ends.append(parameters_of(algorithm.network))
    distances = [(a - b).abs().max() for i, a in enumerate(ends) for b in ends[:i]]
    assert min(distances) > 1e-4


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("start", "plain_steps"), [(0.01, 1), (0.5, 2), (0.74, 3)])
@pytest.mark.parametrize("name", ["FSAM_SSPL_ADM", "GSAM_SPL_Loss"])
def test_update_before_and_after_flatness_starts(tiny, name, start, plain_steps, weighting):
    """Steps of the base first, the curriculum at its pace all the while."""
    algorithm = build(name, weighting=weighting, flatness_start=start)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    nn.utils.vector_to_parameters(parameters_of(algorithm.network), model.parameters())
    hand = ByHand(METHODS[name], weighting, "batch", model, plain_steps=plain_steps)
    for t in range(STEPS):
        figures = algorithm.update(minibatches(t))
        hand.step(t)
        assert figures["flatness_share"] == (t >= plain_steps)
        torch.testing.assert_close(
            parameters_of(algorithm.network), hand.theta.detach(), rtol=1e-9, atol=1e-10, msg=f"after step {t}"
        )
