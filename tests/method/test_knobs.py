"""Controls and knobs of a curriculum: random scores, the order turned around, warm-up, smoothing, ADM's variants."""

import numpy as np
import pytest
import torch
from scipy import stats

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import ORDERS
from domainbed_adm.method.curriculum import SPL, SSPL, hardest_first
from domainbed_adm.method.difficulty import ADM, GDM, Loss, Probe, Random
from domainbed_adm.method.flatness import SAM
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.step import TrainingStep
from tests.method.test_difficulty import probe_of
from tests.reference import curriculum as curriculum_twin
from tests.reference import difficulty as twin
from tests.test_invariants import make, run
from tests.toys import batch, network, parameters_of

CURRICULA = ("SPL", "SSPL")


def scores_of(difficulty, step, index, place=None):
    x = torch.zeros(len(index if index is not None else place), 1)
    return difficulty(Probe(x, torch.zeros(len(x)), None, None, step, index, place))


def step_of(flatness=None, curriculum=None, difficulty=None, model=None, **options):
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return TrainingStep(model, optimizer, flatness, curriculum, difficulty, **{"total_steps": 11, **options})


def train(step, steps=6):
    for t in range(steps):
        x, y = batch(seed=t % 3)
        step(x, y, [5, 4, 3], torch.arange(12) + 5 * t)
    return parameters_of(step.model)


def test_random_scores_are_uniform_new_at_each_step_and_of_the_sample():
    index = torch.arange(2000)
    fresh = [scores_of(Random(seed=3), step, index) for step in range(5)]
    for scores in fresh:
        assert stats.kstest(scores.numpy(), "uniform").pvalue > 1e-3
    correlations = np.corrcoef(torch.stack(fresh).numpy()) - np.eye(5)
    assert np.abs(correlations).max() < 0.1
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scores_of(Random(seed=3), 2, index[order]), fresh[2][order])
    assert not torch.equal(scores_of(Random(seed=4), 2, index), fresh[2])
    fixed = [scores_of(Random("fixed", seed=3), step, index) for step in (0, 7)]
    assert torch.equal(*fixed)
    assert not any(torch.equal(fixed[0], scores) for scores in fresh)
    by_hand = twin.random([5, 0, 17], 4, seed=3)
    assert scores_of(Random(seed=3), 4, torch.tensor([5, 0, 17])).tolist() == pytest.approx(by_hand, abs=1e-7)


def test_random_scores_of_a_loop_that_does_not_say_which_samples_they_are():
    assert len(scores_of(Random(), 1, None, torch.arange(3, 9)).unique()) == 6
    with pytest.raises(UserError, match="random_scores fixed needs index"):
        scores_of(Random("fixed"), 1, None, torch.arange(6))
    whole, parts = step_of(None, SSPL(), Random()), step_of(None, SSPL(), Random(), micro_batch=5)
    for step in (whole, parts):
        for t in range(3):
            step(*batch(seed=t))
    torch.testing.assert_close(parameters_of(whole.model), parameters_of(parts.model), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scores", [[0.3, 1.0, 0.3, 2.0, 0.0], [1.0] * 4, [0.0], [1e-30, 1e30, 1e-29]])
def test_the_order_turned_around_is_its_mirror_image(scores):
    turned = hardest_first(torch.tensor(scores, dtype=torch.float64)).tolist()
    assert turned == [curriculum_twin.rank([-s for s in scores], i) for i in range(len(scores))]


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_hard_first_mirrors_weights(progress):
    """SSPL's weights for the mirror image are 2 minus its own; SPL keeps as many, from the other end."""
    scores = torch.tensor([0.5, 2.0, 0.1, 3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(SSPL()(hardest_first(scores), progress), 2 - SSPL()(scores, progress))
    kept, turned = SPL()(scores, progress), SPL()(hardest_first(scores), progress)
    assert kept.sum() == turned.sum()
    assert scores[turned == 1].min() >= scores.sort().values[-int(kept.sum())]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scope", ["batch", "domain"])
def test_a_step_sees_the_order(order, scope):
    """The objective of a step of SPL is the mean loss of the samples that the twin keeps."""
    model, (x, y) = network(), batch()
    losses = torch.tensor(twin.loss(model, x, y), dtype=torch.float64)
    sign = 1 if order == "easy_first" else -1
    sizes = [5, 4, 3] if scope == "domain" else [12]
    weights = curriculum_twin.within_domains(
        lambda part: curriculum_twin.spl_quantile([sign * s for s in part], 0.0, 0.4), losses.tolist(), sizes
    )
    kept = torch.tensor(weights) == 1
    step = step_of(None, SPL(start=0.4), Loss(), model, order=order, scope=scope)
    assert step(x, y, [5, 4, 3])["loss"] == pytest.approx(losses[kept].mean().item(), rel=1e-10)


@pytest.mark.parametrize("difficulty", [GDM(), ADM()])
@pytest.mark.parametrize("weighting", ["both", "descent"])
def test_warmup_is_the_flatness_method_at_its_cost_and_then_the_curriculum(difficulty, weighting):
    """With 11 steps, progress 0.1 a step: half of them are SAM's bit for bit, then the pace begins at 0."""
    calls, paces = [], []

    class Watched(SSPL):
        def __call__(self, scores, progress):
            paces.append(progress)
            return super().__call__(scores, progress)

    warm = step_of(SAM(), Watched(), difficulty, weighting=weighting, warmup=0.5)
    warm.model.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(train(warm, 5), train(step_of(SAM()), 5))
    assert len(calls) == 10
    assert not paces
    for _ in range(6):
        warm(*batch())
    assert paces == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_warmup_with_memory_remembers_from_the_start():
    step = step_of(SAM(), SSPL(), ADM(), weighting="memory", warmup=0.5)
    assert torch.allclose(train(step, 5), train(step_of(SAM()), 5), rtol=1e-12)
    assert (step.state["difficulty_memory"] >= 0).sum() == 32


def test_the_cost_of_a_warmup_is_told():
    assert METHODS["SAM_SSPL_ADM"].passes("both", warmup_fraction=0.5) == 7
    assert METHODS["SAM_SSPL_ADM"].passes("memory", warmup_fraction=0.5) == 7
    assert METHODS["SAM"].passes("both", warmup_fraction=0.5) == 6


def test_smoothing_keeps_an_exponential_mean_over_visits():
    step = step_of(None, SSPL(), Loss(), weighting="memory", smoothing=0.75)
    means = {}
    for t in range(4):
        x, y = batch(seed=t)
        index = torch.arange(12) + 4 * t
        index[1] = index[0]  # drawn twice: the larger score counts
        losses = twin.loss(step.model, x, y)
        step(x, y, index=index)
        for sample in set(index.tolist()):
            new = max(loss for loss, i in zip(losses, index.tolist(), strict=True) if i == sample)
            means[sample] = 0.75 * means[sample] + 0.25 * new if sample in means else new
    kept = step.state["difficulty_memory"]
    assert {i: s for i, s in enumerate(kept.tolist()) if s >= 0} == pytest.approx(means, rel=1e-10)


def test_batch_mean_is_the_mean_loss_of_the_batch():
    model, (x, y) = network(), batch()
    probe = probe_of(model, x, y)
    for estimator, reference in (("exact", twin.adm), ("linear", twin.adm_linear)):
        for gap in ("absolute", "signed"):
            scores = ADM(delta="batch_mean", gap=gap, estimator=estimator)(probe)
            expected = torch.tensor(reference(model, x, y, delta="batch_mean", gap=gap), dtype=torch.float64)
            torch.testing.assert_close(scores, expected, rtol=1e-10, atol=0)


def test_batch_mean_keeps_the_scale_where_losses_vanish():
    """A confident sample with a small gap is no longer the hardest; with losses all 0 the score is finite."""
    losses = torch.tensor([1e-9, 1.0, 2.0])
    probe = Probe(
        torch.zeros(3, 1), losses, lambda: torch.ones(3, 1), lambda x: losses + torch.tensor([1e-6, 0.1, 0.4])
    )
    assert ADM()(probe).argsort().tolist() == [1, 2, 0]
    assert ADM(delta="batch_mean")(probe).argsort().tolist() == [0, 1, 2]
    nothing = Probe(torch.zeros(2, 1), torch.zeros(2), lambda: torch.zeros(2, 1), lambda x: torch.zeros(2))
    assert ADM(delta="batch_mean")(nothing).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("flatness", ["", "SAM_", "SAGM_", "FSAM_"])
@pytest.mark.parametrize("weighting", ["both", "descent", "memory"])
def test_random_with_eta_0_is_the_flatness_method(curriculum, flatness, weighting):
    """Bit for bit, where weights are 1."""
    ends = []
    for name, mode in ((f"{flatness}{curriculum}_Random", weighting), (flatness.strip("_") or "ERM", "both")):
        step = make(name, mode, network(), sspl_eta=0.0, spl_start=1.0)
        run(step, 6)
        ends.append(parameters_of(step.model))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": 0.5}, 'only weighting "memory" uses: set difficulty_smoothing to 0'),
        ({"order": "hardest"}, "unknown curriculum order"),
        ({"order": "hard_first", "curriculum": SPL(mode="threshold")}, "set spl_mode to quantile"),
        ({"warmup": 1.0}, "must be in"),
    ],
)
def test_what_cannot_be_says_so(options, message):
    with pytest.raises(UserError, match=message):
        step_of(None, **{"curriculum": SSPL(), "difficulty": Loss(), **options})


def test_batch_mean_and_micro_batches_do_not_go_together():
    with pytest.raises(UserError, match="goes neither with micro_batch"):
        step_of(None, SSPL(), ADM(delta="batch_mean"), micro_batch=4)(*batch())
    with pytest.raises(UserError, match='ADM\'s delta must be a number in .0, inf., or one of "batch_mean"'):
        ADM(delta="mean")
