"""Weights against their slow twins, and the properties that define them."""

import pytest
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.method.curriculum import SPL, SSPL, within_domains
from tests.reference import curriculum as twin

PROGRESS = [k / 20 for k in range(21)]
CASES = {
    "SPL": (SPL(), twin.spl_quantile, {}),
    "SPL start": (SPL(start=0.35), twin.spl_quantile, dict(start=0.35)),
    "SPL threshold": (SPL(mode="threshold", threshold=0.8), twin.spl_threshold, dict(threshold=0.8)),
    "SSPL": (SSPL(), twin.sspl, {}),
    "SSPL eta": (SSPL(eta=0.3), twin.sspl, dict(eta=0.3)),
}
SCORES = {
    "distinct": [0.9, 0.05, 0.3, 0.31, 2.0, 0.0, 0.7],
    "ties": [1.0, 1.0, 0.5, 1.0, 0.5, 3.0, 0.5, 0.5, 2.0, 2.0],
    "all equal": [0.4] * 6,
    "one": [0.7],
    "thirty": [((7 * k) % 30) / 30 for k in range(30)],
}


def as_scores(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("case", CASES)
def test_equals_its_slow_twin(case, scores):
    curriculum, reference, options = CASES[case]
    for progress in PROGRESS:
        weights = curriculum(as_scores(SCORES[scores]), progress)
        expected = as_scores(reference(SCORES[scores], progress, **options))
        torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-14, msg=f"at progress {progress}")


@pytest.mark.parametrize("case", CASES)
def test_permuted_scores_give_permuted_weights(case):
    curriculum = CASES[case][0]
    scores = as_scores(SCORES["thirty"])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    for progress in PROGRESS:
        assert torch.equal(curriculum(scores[order], progress), curriculum(scores, progress)[order])


@pytest.mark.parametrize("case", CASES)
def test_keeps_dtype_and_is_detached(case):
    weights = CASES[case][0](torch.tensor([0.1, 0.2]), 0.3)
    assert weights.dtype == torch.float32
    assert not weights.requires_grad


@pytest.mark.parametrize("scores", SCORES)
def test_sspl_has_mean_weight_one_and_mirrored_ends(scores):
    values = as_scores(SCORES[scores])
    for progress in PROGRESS:
        weights = SSPL()(values, progress)
        assert weights.mean().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(weights - 1, 1 - SSPL()(values, 1 - progress), rtol=0, atol=1e-12)
    assert torch.equal(SSPL()(values, 0.5), torch.ones_like(values))


@pytest.mark.parametrize("curriculum", [SSPL(), SSPL(eta=0.3), SPL(), SPL(mode="threshold")])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_scores_have_weight_1_to_the_bit(curriculum, n, dtype):
    scores = torch.full((n,), 0.37, dtype=dtype)
    for progress in [0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0]:
        assert torch.equal(curriculum(scores, progress), torch.ones_like(scores))


def test_sspl_weighs_easy_first_and_hard_last():
    assert SSPL()(as_scores([0.0, 1.0, 2.0]), 0.0).tolist() == [2.0, 1.0, 0.0]
    assert SSPL()(as_scores([0.0, 1.0, 2.0]), 1.0).tolist() == [0.0, 1.0, 2.0]


def test_spl_keeps_ten_stages_of_the_batch():
    kept = [int(SPL()(as_scores(SCORES["thirty"]), step / 99).sum()) for step in range(100)]
    assert kept == sorted(kept)
    assert sorted(set(kept)) == list(range(3, 31, 3))
    assert all(9 <= kept.count(k) <= 11 for k in set(kept))


def test_spl_by_threshold_always_keeps_the_easiest():
    assert SPL(mode="threshold", threshold=1e-3)(as_scores([5.0, 4.0, 6.0]), 0.0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("case", CASES)
def test_scope_domain_ranks_within_each_domain(case):
    curriculum, reference, options = CASES[case]
    scores, sizes = SCORES["thirty"], [7, 0, 13, 10]
    weights = within_domains(curriculum, as_scores(scores), 0.25, sizes)
    expected = twin.within_domains(lambda part: reference(part, 0.25, **options), scores, sizes)
    torch.testing.assert_close(weights, as_scores(expected), rtol=1e-10, atol=1e-14)


def test_scope_domain_does_not_push_out_a_hard_domain():
    scores = as_scores([0.1, 0.2, 0.3, 10.1, 10.2, 10.3])
    assert SPL()(scores, 0.5)[3:].sum() < 2
    assert within_domains(SPL(), scores, 0.5, [3, 3])[3:].sum() == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SPL(start=0), r"start must be a number in \(0, 1\], not 0"),
        (lambda: SPL(start=1.5), r"start must be a number in \(0, 1\], not 1.5"),
        (lambda: SPL(mode="quantil"), 'mode must be one of "quantile", "threshold", not .quantil'),
        (lambda: SPL(threshold=0), r"threshold must be .*\(0, 1e\+30\], not 0"),
        (lambda: SSPL(eta=1.1), r"eta must be a number in \[0, 1\], not 1.1"),
    ],
)
def test_a_value_out_of_range_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
