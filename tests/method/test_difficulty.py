"""Scores against their slow twins, and what a probe must not touch."""

import math

import pytest
import torch
from scipy import stats

from domainbed_adm.errors import UserError
from domainbed_adm.method.difficulty import ADM, GDM, Loss, Probe, mean_ranks, rank_correlation
from domainbed_adm.method.passes import cross_entropy
from tests.reference import difficulty as twin
from tests.toys import batch, network

STD = (0.25, 0.5)
CASES = {
    "Loss": (Loss(), twin.loss, {}),
    "GDM": (GDM(), twin.gdm, {}),
    "ADM": (ADM(), twin.adm, {}),
    "ADM normalised": (ADM(alpha=0.1, delta=0.01, input_std=STD), twin.adm, dict(alpha=0.1, delta=0.01, input_std=STD)),
    "ADM linear": (ADM(estimator="linear"), twin.adm_linear, {}),
    "ADM signed": (ADM(alpha=0.3, gap="signed"), twin.adm, dict(alpha=0.3, gap="signed")),
    "ADM signed linear": (ADM(estimator="linear", gap="signed"), twin.adm_linear, dict(gap="signed")),
    "ADM linear normalised": (ADM(estimator="linear", input_std=STD), twin.adm_linear, dict(input_std=STD)),
}


def probe_of(model, x, y):
    x = x.clone().requires_grad_()
    losses = cross_entropy(model(x), y)
    gradient = torch.autograd.grad(losses.sum(), x)[0]
    return Probe(x.detach(), losses.detach(), lambda: gradient, lambda other: cross_entropy(model(other), y).detach())


@pytest.mark.parametrize("case", CASES)
def test_equals_its_slow_twin(case):
    difficulty, reference, options = CASES[case]
    model, (x, y) = network(), batch()
    scores = difficulty(probe_of(model, x, y))
    torch.testing.assert_close(
        scores, torch.tensor(reference(model, x, y, **options), dtype=torch.float64), rtol=1e-10, atol=0
    )
    assert scores.shape == (12,)
    assert (scores >= 0).all()
    assert not scores.requires_grad


@pytest.mark.parametrize("case", CASES)
def test_does_not_depend_on_the_batch(case):
    """A sample's score is the same alone and in a batch: the input gradient is of the sum, not of the mean."""
    difficulty = CASES[case][0]
    model, (x, y) = network(), batch()
    alone = torch.cat([difficulty(probe_of(model, x[i : i + 1], y[i : i + 1])) for i in range(len(y))])
    torch.testing.assert_close(alone, difficulty(probe_of(model, x, y)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("estimator", ["exact", "linear"])
def test_loss_zero_hits_delta(estimator):
    """With l_i = 0 the score is the gap over delta: finite."""
    probe = Probe(torch.zeros(1, 1, 1, 1), torch.zeros(1), lambda: torch.ones(1, 1, 1, 1), lambda x: x.flatten())
    score = ADM(alpha=0.5, delta=0.25, estimator=estimator)(probe)
    assert score.tolist() == [2.0]


def test_the_linear_score_is_the_small_step_limit_of_the_exact():
    model, (x, y) = network(), batch()
    probe = probe_of(model, x, y)
    exact, linear = ADM(alpha=1e-6)(probe), ADM(alpha=1e-6, estimator="linear")(probe)
    torch.testing.assert_close(exact, linear, rtol=1e-4, atol=0)


def test_ranks_and_rank_correlation_equal_scipys():
    a = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0, 1.0], dtype=torch.float64)
    b = torch.tensor([2.0, 1.5, 1.0, 4.0, 4.0, 0.0], dtype=torch.float64)
    assert mean_ranks(a).tolist() == (stats.rankdata(a.numpy()) - 1).tolist()
    assert rank_correlation(a, b).item() == pytest.approx(stats.spearmanr(a.numpy(), b.numpy()).statistic, rel=1e-12)
    assert math.isnan(rank_correlation(a, torch.ones_like(a)).item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, r"alpha must be a number in \[0, inf\), not -1"),
        ({"alpha": float("nan")}, r"alpha must be a number in \[0, inf\), not nan"),
        ({"delta": 0}, r"delta must be a number in \(0, inf\), or one of .batch_mean., not 0"),
        ({"estimator": "Exact"}, 'estimator must be one of "exact", "linear", not .Exact'),
    ],
)
def test_a_value_out_of_range_is_named(options, message):
    with pytest.raises(UserError, match=message):
        ADM(**options)


def test_a_normalisation_of_other_channels_is_named():
    model, (x, y) = network(), batch()
    with pytest.raises(UserError, match="input_std has 3 channels, the inputs have 2"):
        ADM(input_std=(1, 1, 1))(probe_of(model, x, y))


def test_the_linear_estimator_offers_the_exact_scores_as_its_reference():
    assert ADM().reference is None
    x, y = batch(6)
    probe = probe_of(network(), x, y)
    reference = ADM(estimator="linear").reference
    assert torch.equal(reference(probe), ADM()(probe))
