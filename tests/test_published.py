"""Ours beside the published numbers."""

import math
import statistics
from dataclasses import replace

import pytest

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.board import Entry
from domainbed_adm.leaderboard.published import (
    PublishedRow,
    published_rows,
    published_sheets,
    tables,
    unpublished_lines,
    with_published,
)
from domainbed_adm.leaderboard.rows import tidy_rows
from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.recorded_run import Runs
from domainbed_adm.records import load_runs
from tests.runs import DATA, as_runs, record

TRAINING = SELECTION_METHODS["training-domain"]
DOMAINS = tables()[0]
DATASETS = ("PACS", "VLCS", "OfficeHome", "TerraIncognita")
CLASSIFICATION = "StanfordCars, FGVCAircraft, CUB200, Food101, CIFAR100, CIFAR10"
#: The last column of the poster's table: the mean over the four datasets.
AVERAGES = {
    "ERM": 63.72,
    "SPL_Loss": 62.53,
    "SPL_ADM": 62.55,
    "SSPL_Loss": 59.82,
    "SSPL_GDM": 62.57,
    "SSPL_ADM": 64.01,
    "SAM": 66.70,
    "SAM_SPL_Loss": 66.99,
    "SAM_SPL_ADM": 66.27,
    "SAM_SSPL_Loss": 64.09,
    "SAM_SSPL_GDM": 64.07,
    "SAM_SSPL_ADM": 67.14,
    "SAGM": 66.59,
}


def pacs(accuracy, algorithm="ERM", trials=1, **more):
    return [
        record(*[(accuracy + trial / 100, 0.5)] * 4, test_envs=(env,), algorithm=algorithm, trial_seed=trial, **more)
        for env in range(4)
        for trial in range(trials)
    ]


def board(*records):
    return Board(as_runs(*records), [TRAINING])


def test_every_row_of_the_poster_has_its_average():
    by_algorithm = {}
    for algorithm, dataset, entry, _ in DOMAINS.numbers:
        by_algorithm.setdefault(algorithm, {})[dataset] = entry
    assert list(by_algorithm) == list(AVERAGES)
    assert AVERAGES.keys() < METHODS.keys()
    for algorithm, by_dataset in by_algorithm.items():
        assert tuple(by_dataset) == DATASETS
        assert all(0 < entry.sem < 3 and entry.n == 3 for entry in by_dataset.values())
        assert sum(entry.mean for entry in by_dataset.values()) / 4 == pytest.approx(AVERAGES[algorithm], abs=0.0051)


def test_difference_to_the_records_of_a_real_sweep_by_hand():
    runs = load_runs(DATA / "domainbed_sweep")
    (short,) = published_rows(Board(runs, [TRAINING]), TRAINING, DOMAINS)
    assert (short.standard_errors, short.no_standard_errors) == (None, "not comparable: 1001 steps")
    whole = Runs(replace(run, args=run.args | {"steps": None}) for run in runs)
    (row,) = published_rows(Board(whole, [TRAINING]), TRAINING, DOMAINS)
    trials = [
        100 * (0.976148409893993 + 0.6536470588235294 + 0.734958111195735 + 0.7686042206590151) / 4,
        100 * (0.9832155477031802 + 0.6310588235294118 + 0.7463823305407464 + 0.7734172528693076) / 4,
    ]
    mean, sem = sum(trials) / 2, abs(trials[0] - trials[1]) / 2 / math.sqrt(2)
    assert (row.dataset, row.method) == ("VLCS", "ERM")
    assert (row.published.mean, row.published.sem) == (75.35, 1.02)
    assert (row.ours.mean, row.ours.sem, row.ours.n) == (pytest.approx(mean), pytest.approx(sem), 2)
    assert row.difference == pytest.approx(mean - 75.35)
    unbiased = abs(trials[0] - trials[1]) / 2  # of two, std with divisor 1 is |a - b| / sqrt(2), over sqrt(2)
    assert row.standard_errors == pytest.approx((mean - 75.35) / math.sqrt(unbiased**2 + 1.02**2), rel=1e-12)
    assert row.standard_errors == pytest.approx(2.934, abs=1e-3)


def test_the_distance_is_in_errors_of_both():
    row = PublishedRow("PACS", "ERM", Entry(80.0, math.sqrt(6), 3), Entry(90.0, 4.0, 3))
    assert (row.difference, row.standard_errors) == (-10.0, pytest.approx(-2.0))


def test_ours_counts_by_the_standard_error_with_divisor_n_minus_1():
    (row,) = published_rows(board(*pacs(0.8, trials=2)), TRAINING, DOMAINS)
    trials = [80.0, 81.0]
    assert row.ours.sem == pytest.approx(statistics.pstdev(trials) / math.sqrt(2))
    expected = (80.5 - 82.16) / math.hypot(statistics.stdev(trials) / math.sqrt(2), 0.77)
    assert row.standard_errors == pytest.approx(expected, rel=1e-12)


def test_one_trial_or_another_number_of_steps_has_no_number_of_standard_errors():
    found = board(*pacs(0.8062))
    (row,) = published_rows(found, TRAINING, DOMAINS)
    assert (row.ours.sem, row.standard_errors) == (None, None)
    (sheet,) = published_sheets(found, TRAINING)
    assert sheet.rows == (("PACS", "ERM", "80.62", "1", "82.16±0.77", "-1.54", "one trial: no error of ours"),)
    short = pacs(0.8, trials=3)
    short[0]["args"]["steps"] = 40
    (row,) = published_sheets(board(*short), TRAINING)[0].rows
    assert row[-2:] == ("-1.16", "not comparable: 40 steps")
    short[0]["args"]["steps"] = 5001
    (row,) = published_sheets(board(*short), TRAINING)[0].rows
    assert row[-1] == f"{-1.16 / math.hypot(statistics.stdev([80, 81, 82]) / 3**0.5, 0.77):+.2f}"


def test_a_method_without_all_environments_is_x():
    found = board(*pacs(0.8), *pacs(0.8, "SAM")[:3])
    assert published_sheets(found, TRAINING)[0].rows[1] == ("PACS", "SAM", "X", "0", "84.66±0.38", "-", "-")


def test_the_note_says_what_the_poster_leaves_open_and_who_is_not_in_it():
    note = published_sheets(board(*pacs(0.8, trials=2), *pacs(0.8, "FSAM"), *pacs(0.8, "Mine")), TRAINING)[0].note
    for part in (
        "arXiv 2508.18726",
        "It names no backbone, number of steps or model selection method",
        "does not say what ± is: taken as the standard error over 3 trials",
        "unlike ± of ours, is of std with divisor n - 1 and sem_published is as published; not for one trial",
        "Not published: FSAM, Mine. ",
        "Selected by training-domain validation set",
    ):
        assert part in note
    assert "Not published" not in published_sheets(board(*pacs(0.8)), TRAINING)[0].note


def test_what_is_not_published_is_a_line():
    digits = pacs(0.9, dataset="RotatedDigits")
    line = (
        "no published numbers for RotatedDigits; there are for PACS, VLCS, OfficeHome, TerraIncognita, "
        + CLASSIFICATION
    )
    assert unpublished_lines(board(*digits)) == [line]
    assert published_sheets(board(*digits), TRAINING) == []
    assert unpublished_lines(board(*pacs(0.9), *digits)) == [line]
    assert unpublished_lines(board(*pacs(0.9), *pacs(0.9, "FSAM"))) == []
    (line,) = unpublished_lines(board(*pacs(0.9, "SAGM_SPL_ADM")))
    assert line.startswith("no published numbers for SAGM_SPL_ADM; there are for ERM, SPL_Loss, ")


def test_tidy_rows_get_columns_and_a_row_for_each_average():
    found = board(*pacs(0.8, trials=3)[:-1], *pacs(0.8, "FSAM")[:1])
    before = tidy_rows(found, [TRAINING])
    rows = with_published(before, found, [TRAINING])
    assert [set(row) for row in rows] == [set(rows[0])] * 9
    nothing = {"published": None, "published_sem": None, "difference": None, "standard_errors": None}
    nothing["published_by"] = None
    assert rows[:8] == [{**row, **nothing} for row in before]
    assert rows[8] == {
        "selection": "training-domain",
        "dataset": "PACS",
        "algorithm": "ERM",
        "environment": "Avg",
        "environment_index": None,
        "quantity": "accuracy",
        "unit": "%",
        "measured_on": "PACS",
        "attack": "",
        "mean": pytest.approx(80.5),
        "sem": pytest.approx(0.5 / 2**0.5),
        "n": 2,
        "trial_seeds": [0, 1],
        "hparams_seeds": [0],
        "selection_splits": TRAINING.splits,
        "versions": "not recorded",
        "published": 82.16,
        "published_sem": 0.77,
        "difference": pytest.approx(-1.66),
        "standard_errors": pytest.approx(-1.66 / math.hypot(0.5, 0.77)),
        "published_by": DOMAINS.source,
    }
