"""Paired differences against their slow twin, the properties that define them, and how pairs are made of records."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.comparison import benjamini_hochberg, paired_difference
from domainbed_adm.leaderboard.comparison_sheet import comparison_rows, comparison_sheet
from domainbed_adm.leaderboard.paired import ALL, compared, comparisons
from domainbed_adm.model_selection import SELECTION_METHODS
from tests.fuzzing import repeatable
from tests.reference import comparison as twin
from tests.runs import as_runs, record

TRAINING, LOO, ORACLE = SELECTION_METHODS.values()
bounded = repeatable(25)
#: Eighths are exact in binary and tie often, zeros among them.
eighths = st.integers(-24, 24).map(lambda k: k / 8)
some_pairs = st.lists(st.tuples(eighths, eighths), min_size=1, max_size=9)


def sides(pairs):
    return [a for a, _ in pairs], [b for _, b in pairs]


@bounded
@given(some_pairs)
def test_mean_and_p_equal_their_slow_twins(pairs):
    found = paired_difference(*sides(pairs))
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(twin.mean_difference(*sides(pairs)), rel=1e-10, abs=1e-12)
    assert found.p == pytest.approx(twin.wilcoxon([a - b for a, b in pairs]), rel=1e-10)


@pytest.mark.parametrize("size", [3, 6, 12, 15])
def test_p_without_ties_equals_its_slow_twin(size):
    differences = np.random.default_rng(size).normal(0.4, 1, size)
    assert paired_difference(differences, [0.0] * size).p == pytest.approx(twin.wilcoxon(list(differences)), rel=1e-10)


def test_p_of_many_ties_is_near_its_slow_twin():
    differences = [1.0, 1, 2, 2, 3, -1, 4, 4, -2, 5, 1, -3, 2, 3, 6]
    assert paired_difference(differences, [0.0] * 15).p == pytest.approx(twin.wilcoxon(differences), rel=0.1)


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
    ours, theirs = sides(pairs)
    found, swapped = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert (swapped.n, swapped.p, swapped.remarks) == (found.n, found.p, found.remarks)
    assert swapped.mean == -found.mean
    moved = paired_difference([a + shift for a in ours], theirs)
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-9)
    assert (found.interval is None) == (len(pairs) < 4 or len({a - b for a, b in pairs}) == 1)
    if found.interval:
        low, high = found.interval
        assert np.isfinite([low, high]).all()
        assert low < high
        assert swapped.interval == pytest.approx((-high, -low), abs=1e-9)
        assert moved.interval == pytest.approx((low + shift, high + shift), abs=1e-9)


def test_a_planted_effect_is_found_and_noise_alone_is_not():
    generator = np.random.default_rng(0)
    baseline, noise = generator.normal(70, 8, 48), generator.normal(0, 1, 48)
    planted = paired_difference(baseline + noise + 1.5, baseline)
    assert planted.interval[0] < 1.5 < planted.interval[1]
    assert planted.p < 1e-6
    expected = 2 * 1.96 * noise.std() / 48**0.5
    assert planted.interval[1] - planted.interval[0] == pytest.approx(expected, rel=0.1)
    nothing = paired_difference(baseline + noise, baseline)
    assert nothing.interval[0] < 0 < nothing.interval[1]
    assert nothing.p > 0.05


def test_the_same_numbers_give_the_same_result_whatever_was_drawn_before():
    values = list(np.random.default_rng(1).normal(size=9))
    first = paired_difference(values, [0.0] * 9)
    np.random.seed(5)
    assert paired_difference(values, [0.0] * 9) == first


@pytest.mark.parametrize(
    ("differences", "p", "remarks"),
    [
        ([], None, ("no common pair",)),
        ([1], 1, ("fewer than 4 pairs: no interval", "only 1 pair differs: p cannot be below 1")),
        ([1, 2, 3], 0.25, ("fewer than 4 pairs: no interval", "only 3 pairs differ: p cannot be below 0.25")),
        ([2] * 5, 0.0625, ("all differences are equal: no interval", "only 5 pairs differ: p cannot be below 0.0625")),
        ([0] * 7, 1, ("all differences are equal: no interval", "all differences are zero")),
        ([1, 2, 3, 4, 5, 6], 0.03125, ()),
        ([1, 2, 3, 4, 5, 0], 0.0625, ("only 5 pairs differ: p cannot be below 0.0625",)),
    ],
)
def test_what_cannot_be_said_is_said(differences, p, remarks):
    found = paired_difference([70.0 + d for d in differences], [70.0] * len(differences))
    assert (found.p, found.remarks) == (p, remarks)


def test_rounding_errors_make_no_difference_and_break_no_tie():
    ours = [100 * right / 850 for right in (100, 278, 535)] + [70 + 2e-14]
    theirs = [100 * right / 850 for right in (90, 268, 545)] + [70.0]
    assert len({abs(a - b) for a, b in zip(ours, theirs, strict=True)} - {0.0}) == 4
    found = paired_difference(ours, theirs)
    assert found.p == twin.wilcoxon([1, 1, -1, 0])
    assert "only 3 pairs differ" in found.remarks[-1]


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many of one as of the other: 2 and 3"):
        paired_difference([1, 2], [1, 2, 3])


def runs(algorithm, accuracies, dataset="Mine"):
    """Runs on two environments; ``accuracies`` are by (environment, trial)."""
    return [
        record((acc, 0.5), (acc, 0.5), test_envs=(env,), algorithm=algorithm, dataset=dataset, trial_seed=trial)
        for (env, trial), acc in accuracies.items()
    ]


def grid(start, trials=3):
    return {(env, trial): start + 0.01 * env + 0.02 * trial for env in range(2) for trial in range(trials)}


def board(*records):
    return Board(as_runs(*records), SELECTION_METHODS.values())


def test_pairs_share_trial_and_environment_and_others_are_left_out():
    ours = {(0, 0): 0.70, (1, 0): 0.60, (0, 1): 0.90, (0, 7): 0.10}
    theirs = {(0, 0): 0.60, (1, 0): 0.62, (0, 1): 0.50, (1, 1): 0.99, (1, 2): 0.99}
    (one,) = comparisons(board(*runs("SAM", theirs), *runs("New", ours)), TRAINING, "SAM", ["New"])
    assert (one.dataset, one.method, one.baseline, one.left_out) == ("Mine", "New", "SAM", 3)
    assert (one.difference.n, one.difference.mean) == (3, pytest.approx((10 - 2 + 40) / 3))


def test_each_dataset_then_all_and_the_correction_over_the_whole_list():
    records = [one for name, start in (("SAM", 0.5), ("A", 0.6), ("B", 0.4)) for one in runs(name, grid(start))]
    records += runs("SAM", grid(0.5, 1), "Other") + runs("A", {(0, 0): 0.52}, "Other")
    both = board(*records)
    found = comparisons(both, TRAINING, "SAM", ["A", "B"])
    labels = [(one.dataset, one.method, one.difference.n) for one in found]
    assert labels == [("Mine", "A", 6), ("Mine", "B", 6), ("Other", "A", 1), ("Other", "B", 0), (ALL, "A", 7)]
    assert found[-1].difference.mean == pytest.approx((6 * 10 + 2) / 7)
    p_values = [one.difference.p for one in found]
    assert p_values[:4] == [0.03125, 0.03125, 1, None]
    assert [one.corrected for one in found] == benjamini_hochberg(p_values)
    assert [one.left_out for one in found] == [0, 0, 1, 2, 1]
    note = comparison_sheet(both, TRAINING, found).note
    assert "; 3 left out because one side lacks them. " in note
    assert "over the 4 p of this table, every method and dataset and the rows of all datasets. " in note


def test_the_order_of_the_records_does_not_matter():
    generator = random.Random(0)
    records = [
        one
        for dataset in ("Zoo", "Anon")
        for name in ("SAM", "A")
        for one in runs(name, {key: generator.random() for key in grid(0)}, dataset)
    ]
    first = comparisons(board(*records), TRAINING, "SAM", ["A"])
    again = comparisons(board(*reversed(records)), TRAINING, "SAM", ["A"])
    assert sorted(map(str, again)) == sorted(map(str, first))


def test_the_table_has_a_correction_where_there_are_several_p_and_says_over_what():
    three = board(*(one for name, start in (("SAM", 0.5), ("A", 0.6), ("B", 0.4)) for one in runs(name, grid(start))))
    sheet = comparison_sheet(three, TRAINING, comparisons(three, TRAINING, "SAM", ["A", "B"]))
    assert sheet.title == "Comparison with SAM, model selection method: training-domain validation set"
    assert sheet.columns == ("pairs", "difference", "95 % interval", "p", "p (Benjamini-Hochberg)", "remark")
    no_interval = "all differences are equal: no interval"
    assert sheet.rows == (
        ("Mine", "A", "SAM", "6", "+10.00", "-", "0.0312", "0.0312", no_interval),
        ("Mine", "B", "SAM", "6", "-10.00", "-", "0.0312", "0.0312", no_interval),
    )
    for part in (
        "mean over pairs of the same trial seed and test environment",
        "; 0 left out because one side lacks them. ",
        "BCa bootstrap",
        "Wilcoxon's signed-rank test, two-sided, over the pairs that differ; fewer than 6 of them cannot give p below",
        "over the 2 p of this table, every method and dataset. ",
        "Pairs that share a test environment are not independent: p is too small",
        "Selected by training-domain validation set: out-splits",
        "Trial seeds 0, 1, 2; ",
    ):
        assert part in sheet.note
    alone = comparison_sheet(three, TRAINING, comparisons(three, TRAINING, "SAM", ["A"]))
    assert alone.columns == ("pairs", "difference", "95 % interval", "p", "remark")
    assert "Hochberg" not in alone.note


def test_rows_for_programs():
    two = board(*runs("SAM", grid(0.5, 2)), *runs("A", {**grid(0.6, 2), (0, 0): 0.9}))
    (row,) = comparison_rows(two, ORACLE, comparisons(two, ORACLE, "SAM", ["A"]))
    assert row["low"] < row["mean_difference"] < row["high"]
    del row["low"], row["high"]
    assert row == {
        "selection": "oracle",
        "dataset": "Mine",
        "method": "A",
        "baseline": "SAM",
        "n": 4,
        "left_out": 0,
        "mean_difference": pytest.approx(17.5),
        "p": 0.125,
        "p_benjamini_hochberg": 0.125,
        "corrected_over": 1,
        "remark": "only 4 pairs differ: p cannot be below 0.125",
        "interval": "95 %, BCa bootstrap, 9999 resamples, seed 0",
        "test": "Wilcoxon signed-rank, two-sided",
        "selection_splits": ORACLE.splits,
        "versions": "not recorded",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["SAM"], "--compare needs two algorithms or more, the baseline first"),
        (["SAM", "A", "SAM"], "--compare has SAM twice"),
        (["SAM", "SAGM"], "unknown algorithm 'SAGM'. Did you mean SAM? Valid: SAM, A, Lone"),
        (["SAM", "A", "Lone"], "Lone and SAM have no accuracy of the same dataset, trial seed and test environment"),
    ],
)
def test_names_that_cannot_be_compared(names, message):
    found = board(*runs("SAM", grid(0.5)), *runs("A", grid(0.6)), *runs("Lone", {(0, 9): 0.5}))
    with pytest.raises(UserError) as caught:
        compared(found, SELECTION_METHODS.values(), names)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_selection_method_without_a_pair_is_shown_empty_beside_the_others():
    found = compared(board(*runs("SAM", grid(0.5)), *runs("A", grid(0.6))), SELECTION_METHODS.values(), ["SAM", "A"])
    assert {method.key: [one.difference.n for one in ones] for method, ones in found.items()} == {
        "training-domain": [6],
        "leave-one-domain-out": [0],
        "oracle": [6],
    }
