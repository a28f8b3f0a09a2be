"""Learning curves."""

from __future__ import annotations

import math

import pytest

from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report.curves import MEASURES, MOST_POINTS, chosen_records, curve, what
from tests.runs import record

TRAINING = SELECTION_METHODS["training-domain"]
TEST, SOURCE, LOSS = MEASURES


def test_measures_of_a_record() -> None:
    one = record((0.1, 0.2), (0.3, 0.4), (0.5, 0.8), loss=1.5)
    assert [measure.of(one, 0) for measure in MEASURES] == [pytest.approx(10), pytest.approx(60), 1.5]
    assert [LOSS.of(record(loss=loss), 0) for loss in (math.nan, math.inf, -1e308, "x")] == [None] * 4
    holes = record((None, 0.2), (0.3, 0.4), (0.5, None), loss=None)
    assert [measure.of(holes, 0) for measure in MEASURES] == [None, None, None]


def test_mean_over_the_runs_that_recorded_the_step() -> None:
    records = [record(step=step, loss=loss) for step, loss in ((0, 1.0), (0, 3.0), (5, 4.0))]
    assert curve(records, LOSS, 0) == [(0, 2.0), (5, 4.0)]
    assert curve([], LOSS, 0) == []


def test_step_0_is_left_out_where_there_are_enough_others() -> None:
    records = [record(step=step, loss=1.0) for step in range(5)]
    assert [step for step, _ in curve(records, LOSS, 0)] == [1, 2, 3, 4]
    assert [step for step, _ in curve(records[:4], LOSS, 0)] == [0, 1, 2, 3]


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    found = curve([record(step=step, loss=1.0) for step in range(1000)], LOSS, 0)
    assert len(found) <= MOST_POINTS + 1
    assert found[0][0] == 1
    assert found[-1][0] == 999


def test_each_trials_chosen_run_and_no_pair() -> None:
    runs = [
        record((0.1, 0), (0, val), (0, val), trial_seed=trial, hparams_seed=seed)
        for trial, seed, val in ((0, 0, 0.9), (0, 1, 0.2), (1, 0, 0.3), (1, 1, 0.4), (2, 3, None), (2, 2, None))
    ]
    board = Board([*runs, record((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), test_envs=(0, 1), trial_seed=3)], [TRAINING])
    chosen = chosen_records(board, TRAINING, "PACS", "ERM", 0)
    assert [(one["args"]["trial_seed"], one["args"]["hparams_seed"]) for one in chosen] == [(0, 0), (1, 1), (2, 2)]
    assert what(board, TRAINING) == (
        "Mean over 4 trials of the run of 4 hparams seeds that training-domain validation set selects."
    )
    assert what(Board(runs[:1], [TRAINING]), TRAINING) == "Mean over 1 trial of the runs with hparams seed 0."
