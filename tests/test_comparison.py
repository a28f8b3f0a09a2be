"""Paired differences against their slow twin, the properties that define them, and how pairs are made of records."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.interval_coverage import DISTRIBUTIONS, bootstrap_coverage, student_coverage
from domainbed_adm.leaderboard.comparison import (
    COVERAGE_FILE,
    benjamini_hochberg,
    paired_difference,
    simulated_coverage,
)
from domainbed_adm.model_selection import SELECTION_METHODS
from tests.fuzzing import repeatable
from tests.reference import comparison as twin

TRAINING, LOO, ORACLE = SELECTION_METHODS.values()
bounded = repeatable(25)
#: Eighths are exact in binary and tie often, zeros among them.
eighths = st.integers(-24, 24).map(lambda k: k / 8)
#: The two sides and the environment of each pair.
some_pairs = st.lists(st.tuples(eighths, eighths, st.integers(0, 8)), min_size=1, max_size=20)


def compare(differences, environments=None):
    """Against a baseline of zero; by default each pair has an environment of its own."""
    n = len(differences)
    return paired_difference(differences, [0.0] * n, range(n) if environments is None else environments)


@bounded
@given(some_pairs)
def test_mean_interval_and_p_equal_their_slow_twins(pairs):
    sides = list(zip(*pairs, strict=True))
    found = paired_difference(*sides)
    means = [round(mean, 9) for mean in twin.environment_means(*sides)]
    assert (found.n, found.n_environments) == (len(pairs), len(means))
    assert found.mean == pytest.approx(sum(means) / len(means), rel=1e-10, abs=1e-12)
    if len(set(means)) > 1:
        assert found.interval == pytest.approx(twin.student_interval(means), rel=1e-8, abs=1e-9)
    else:
        assert found.interval is None
    if sum(mean != 0 for mean in means) >= 6:
        assert found.p == pytest.approx(twin.wilcoxon(means), rel=1e-10)
    else:
        assert found.p is None


@pytest.mark.parametrize("size", [6, 12, 15])
def test_p_without_ties_equals_its_slow_twin(size):
    differences = np.random.default_rng(size).normal(0.4, 1, size)
    assert compare(differences).p == pytest.approx(twin.wilcoxon(list(differences)), rel=1e-10)


def test_p_of_many_ties_is_near_its_slow_twin():
    differences = [1.0, 1, 2, 2, 3, -1, 4, 4, -2, 5, 1, -3, 2, 3, 6]
    assert compare(differences).p == pytest.approx(twin.wilcoxon(differences), rel=0.1)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [2, 6, 16, 24])
def test_coverage_is_the_stored_one_within_the_simulations_error(n, distribution):
    """With clusters: the trials of an environment share its effect, which is what the interval must be about."""
    draws, random = 2000, np.random.default_rng(7)
    effects = DISTRIBUTIONS[distribution](random, (draws, n))
    noise = random.choice([-0.01, 0.01], (draws, n, 3))
    held = 0
    for effect, of_trials in zip(effects, noise, strict=True):
        low, high = compare((effect[:, None] + of_trials).ravel(), np.repeat(range(n), 3)).interval
        held += low <= 0 <= high
    stored = yaml.safe_load(COVERAGE_FILE.read_text(encoding="utf-8"))["student"][n][distribution]
    assert 100 * held / draws == pytest.approx(stored, abs=4 * 100 * (0.95 * 0.05 / draws) ** 0.5 + 0.1)
    assert student_coverage(n, distribution, 20_000, seed=3) == pytest.approx(stored, abs=0.9)


def test_the_bootstrap_covers_less_at_every_number_of_environments_a_table_has():
    stored = yaml.safe_load(COVERAGE_FILE.read_text(encoding="utf-8"))
    for n in range(4, 25):
        assert all(stored["bootstrap"][n][name] < stored["student"][n][name] for name in DISTRIBUTIONS)
    assert bootstrap_coverage(6, "normal", 500, seed=3) == pytest.approx(stored["bootstrap"][6]["normal"], abs=6)


def test_coverage_beyond_the_table_is_that_of_its_last_fewer_row():
    assert simulated_coverage(6) == (88.6, 96.2)
    assert simulated_coverage(31) == simulated_coverage(24)
    assert simulated_coverage(1000) == simulated_coverage(48)


def test_trials_of_one_environment_do_not_count_as_more():
    once, thrice = compare([1.0, 2, 4, 8]), compare([1.0, 2, 4, 8] * 3, [0, 1, 2, 3] * 3)
    assert (thrice.n, thrice.n_environments) == (12, 4)
    assert (thrice.mean, thrice.interval, thrice.p, thrice.remarks) == (once.mean, once.interval, once.p, once.remarks)


@bounded
@given(st.lists(st.floats(1e-6, 1) | st.sampled_from([0.01, 0.02, 0.04]), min_size=1, max_size=8))
def test_corrected_p_equals_its_slow_twin(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(twin.corrected(p_values), rel=1e-10)


def test_correction_by_hand_and_what_has_no_p_is_no_comparison():
    assert benjamini_hochberg([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.04),
        pytest.approx(0.04),
    ]
    assert benjamini_hochberg([None]) == [None]
    assert benjamini_hochberg([]) == []


@bounded
@given(some_pairs, eighths)
def test_swapped_sides_flip_the_sign_and_a_shift_moves_all(pairs, shift):
    ours, theirs, environments = zip(*pairs, strict=True)
    found, swapped = paired_difference(ours, theirs, environments), paired_difference(theirs, ours, environments)
    assert (swapped.n, swapped.p, swapped.remarks) == (found.n, found.p, found.remarks)
    assert swapped.mean == -found.mean
    moved = paired_difference([a + shift for a in ours], theirs, environments)
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-8)
    if found.interval:
        low, high = found.interval
        assert low < found.mean < high
        assert swapped.interval == pytest.approx((-high, -low), abs=1e-9)
        assert moved.interval == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_a_planted_effect_is_found_and_noise_alone_is_not():
    noise = np.random.default_rng(0).normal(0, 1, 48)
    planted, nothing = compare(noise + 1.5), compare(noise)
    assert planted.interval[0] < 1.5 < planted.interval[1]
    assert planted.p < 1e-6
    assert nothing.interval[0] < 0 < nothing.interval[1]
    assert nothing.p > 0.05


NO_P = "n too small for p: the smallest possible is {} at {}"


@pytest.mark.parametrize(
    ("differences", "p", "remarks"),
    [
        ([], None, ("no common pair",)),
        ([1], None, ("a single test environment: no interval", NO_P.format("1", 1))),
        ([1, 2], None, (NO_P.format("0.5", 2),)),
        ([2] * 5, None, ("all environments differ by the same: no interval", NO_P.format("0.062", 5))),
        ([0] * 7, None, ("all environments differ by the same: no interval", "no environment differs: no p")),
        ([1, 2, 3, 4, 5, 6], 0.03125, ()),
        ([1, 2, 3, 4, 5, 0], None, (NO_P.format("0.062", 5),)),
    ],
)
def test_what_cannot_be_said_is_said(differences, p, remarks):
    found = compare(differences)
    assert (found.p, found.remarks) == (p, remarks)
    assert (found.coverage is None) == (found.interval is None)


def test_rounding_errors_make_no_difference_and_break_no_tie():
    ours = [100 * right / 850 for right in (100, 278, 535, 110, 288, 120, 130)] + [70 + 2e-14]
    theirs = [100 * right / 850 for right in (90, 268, 545, 100, 278, 110, 120)] + [70.0]
    assert len({abs(a - b) for a, b in zip(ours, theirs, strict=True)} - {0.0}) > 2
    found = paired_difference(ours, theirs, range(8))
    assert found.p == pytest.approx(twin.wilcoxon([1, 1, -1, 1, 1, 1, 1, 0]))


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many of each: 2 of the method, 3 of the baseline, 3 environments"):
        paired_difference([1, 2], [1, 2, 3], [0, 1, 2])
