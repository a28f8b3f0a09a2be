"""Algorithms of a board compared in pairs, as a table, as rows and on the command line."""

import random

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.comparison import (
    ALL,
    benjamini_hochberg,
    compared,
    comparison_rows,
    comparison_sheet,
    comparisons,
)
from domainbed_adm.model_selection import SELECTION_METHODS
from tests.reference import comparison as twin
from tests.runs import as_runs, record

TRAINING, LOO, ORACLE = SELECTION_METHODS.values()


def runs(algorithm, accuracies, dataset="Mine"):
    """Runs on two environments or as many as are held out; ``accuracies`` are by (environment, trial)."""
    count = max([2, *(env + 1 for env, _ in accuracies)])
    return [
        record(*[(acc, 0.5)] * count, test_envs=(env,), algorithm=algorithm, dataset=dataset, trial_seed=trial)
        for (env, trial), acc in accuracies.items()
    ]


def grid(start, trials=3, environments=2):
    return {(env, trial): start + 0.01 * env + 0.02 * trial for env in range(environments) for trial in range(trials)}


def board(*records):
    return Board(as_runs(*records), SELECTION_METHODS.values())


def test_pairs_share_trial_and_environment_and_others_are_left_out():
    ours = {(0, 0): 0.70, (1, 0): 0.60, (0, 1): 0.90, (0, 7): 0.10}
    theirs = {(0, 0): 0.60, (1, 0): 0.62, (0, 1): 0.50, (1, 1): 0.99, (1, 2): 0.99}
    (one,) = comparisons(board(*runs("SAM", theirs), *runs("New", ours)), TRAINING, "SAM", ["New"])
    assert (one.dataset, one.method, one.baseline, one.left_out) == ("Mine", "New", "SAM", 3)
    assert (one.difference.n, one.difference.mean) == (3, pytest.approx(((10 + 40) / 2 - 2) / 2))


def test_each_dataset_then_all_and_the_correction_over_the_whole_list():
    starts = (("SAM", 0.5), ("A", 0.6), ("B", 0.4))
    records = [one for name, start in starts for one in runs(name, grid(start, environments=6))]
    records += runs("SAM", grid(0.5, 1), "Other") + runs("A", {(0, 0): 0.52}, "Other")
    both = board(*records)
    found = comparisons(both, TRAINING, "SAM", ["A", "B"])
    labels = [(one.dataset, one.method, one.difference.n) for one in found]
    assert labels == [("Mine", "A", 18), ("Mine", "B", 18), ("Other", "A", 1), ("Other", "B", 0), (ALL, "A", 19)]
    assert [one.difference.n_environments for one in found] == [6, 6, 1, 0, 7]
    assert found[-1].difference.mean == pytest.approx((6 * 10 + 2) / 7)
    p_values = [one.difference.p for one in found]
    assert p_values == [0.03125, 0.03125, None, None, 0.015625]
    assert [one.corrected for one in found] == benjamini_hochberg(p_values)
    assert [one.left_out for one in found] == [0, 0, 1, 2, 1]
    note = comparison_sheet(both, TRAINING, found).note
    assert "; 3 left out because one side lacks them. " in note
    assert "over the 3 p of this table, every method and dataset and the rows of all datasets. " in note


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
    seeds = {"SAM": grid(0.5, environments=6), "B": grid(0.4, environments=6)}
    seeds["A"] = {(env, trial): accuracy + 0.1 + 0.01 * env for (env, trial), accuracy in seeds["SAM"].items()}
    three = board(*(one for name, accuracies in seeds.items() for one in runs(name, accuracies)))
    sheet = comparison_sheet(three, TRAINING, comparisons(three, TRAINING, "SAM", ["A", "B"]))
    assert sheet.title == "Comparison with SAM, model selection method: training-domain validation set"
    columns = ("pairs", "environments", "difference", "95 % interval", "coverage", "p")
    assert sheet.columns == (*columns, "p (Benjamini-Hochberg)", "remark")
    no_interval = "all environments differ by the same: no interval"
    low, high = twin.student_interval([10, 11, 12, 13, 14, 15])
    assert sheet.rows == (
        ("Mine", "A", "SAM", "18", "6", "+12.50", f"{low:+.2f} to {high:+.2f}", "89 to 96 %", "0.031", "0.031", ""),
        ("Mine", "B", "SAM", "18", "6", "-10.00", "-", "-", "0.031", "0.031", no_interval),
    )
    for part in (
        "Pairs of the same trial seed and test environment are averaged over trials within an environment, then over",
        "; 0 left out because one side lacks them. ",
        "Student's t over environments",
        "how often such an interval holds the mean, simulated for as many environments",
        "over the environments that differ; fewer than 6 cannot give p below 0.05 and have none. ",
        "over the 2 p of this table, every method and dataset. ",
        "Selected by training-domain validation set: out-splits",
        "Trial seeds 0, 1, 2; ",
    ):
        assert part in sheet.note
    alone = comparison_sheet(three, TRAINING, comparisons(three, TRAINING, "SAM", ["A"]))
    assert alone.columns == columns
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
        "n_environments": 2,
        "left_out": 0,
        "mean_difference": pytest.approx(17.5),
        "coverage_low": 91.1,
        "coverage_high": 95.8,
        "p": None,
        "p_benjamini_hochberg": None,
        "corrected_over": 0,
        "remark": "n too small for p: the smallest possible is 0.5 at 2",
        "interval": "95 %, Student's t over test environments",
        "test": "Wilcoxon signed-rank, two-sided, over test environments",
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
