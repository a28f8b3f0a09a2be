import math

import numpy as np
import pytest

from domainbed_adm.analysis.difficulty import agreement, rank_correlations, same_order, separability
from tests.reference import separability as slow

T, N = 4, 17


@pytest.fixture
def scores():
    random = np.random.default_rng(0)
    return random.integers(0, 9, (T, N)).astype(np.float32) / 4  # with ties


def test_figures_are_those_of_the_slow_twins(scores):
    correct = np.random.default_rng(1).random((T, N)) < 0.5
    figures = separability(scores, correct)
    for t in range(T):
        row = scores[t].astype(float).tolist()
        assert figures["variation"][t] == pytest.approx(slow.variation(row), rel=1e-10)
        assert figures["correctness_correlation"][t] == pytest.approx(
            slow.spearman(row, correct[-1].astype(float).tolist()), rel=1e-10
        )
        if t:
            assert figures["self_correlation"][t] == pytest.approx(
                slow.spearman(row, scores[t - 1].tolist()), rel=1e-10
            )
    assert math.isnan(figures["self_correlation"][0])


def test_one_checkpoint_has_no_earlier_one(scores):
    figures = separability(scores[:1], np.ones((1, N), bool))
    assert np.isnan(figures["self_correlation"]).all()
    assert figures["variation"].shape == (1,)


def test_equal_scores_are_told_apart_by_nothing():
    figures = separability(np.ones((2, N)), np.arange(2 * N).reshape(2, N) % 2 == 0)
    assert figures["variation"].tolist() == [0, 0]
    assert np.isnan(figures["correctness_correlation"]).all()
    assert np.isnan(separability(np.zeros((1, N)), np.ones((1, N), bool))["variation"]).all()
    assert math.isnan(same_order(np.ones(5), np.arange(5)))


def test_a_score_that_is_no_number_spoils_its_own_checkpoint_only(scores):
    scores[1, 3] = np.nan
    found = rank_correlations(scores, scores[:, ::-1].copy())
    assert np.isnan(found).tolist() == [False, True, False, False]


def test_the_share_of_the_order_kept_is_that_of_the_slow_twin(scores):
    for exact, estimate in zip(scores, scores[::-1], strict=True):
        assert same_order(exact, estimate) == pytest.approx(slow.same_order(exact.tolist(), estimate.tolist()))
    assert same_order(scores[0], scores[0] * 3) == 1
    assert same_order(scores[0], -scores[0]) == 0
    assert same_order(scores[0], np.zeros(N)) == 0.5


def test_an_estimate_is_held_against_the_exact_scores(scores):
    found = agreement(scores, np.roll(scores, 1, axis=0))
    for t in range(T):
        exact, linear = scores[t].tolist(), scores[t - 1].tolist()
        assert found["linear_share"][t] == pytest.approx(slow.same_order(exact, linear))
        assert found["linear_rank_correlation"][t] == pytest.approx(slow.spearman(exact, linear))
