"""Learning curves."""

from __future__ import annotations

import math
from typing import Any

import pytest

from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report.section_learning import MEASURES, MOST_POINTS, curve, selected_by, selected_runs, undrawn
from tests.runs import as_runs, record

TRAINING = SELECTION_METHODS["training-domain"]
TEST, SOURCE, LOSS = MEASURES


def test_measures_of_a_record() -> None:
    def values(one: dict[str, Any]) -> list[float]:
        (run,) = as_runs(one)
        return [float(value) for measure in MEASURES for value in measure.of(run, 0)]

    assert values(record((0.1, 0.2), (0.3, 0.4), (0.5, 0.8), loss=1.5)) == pytest.approx([10, 60, 1.5])
    for loss in (math.nan, math.inf, -1e308, "x", None):
        assert values(record((None, 0.2), (0.3, 0.4), (0.5, None), loss=loss)) == pytest.approx(
            [math.nan] * 3, nan_ok=True
        )


def test_mean_over_the_runs_that_recorded_the_step() -> None:
    values = ((0, 0, 1.0), (1, 0, 3.0), (1, 5, 4.0))
    runs = as_runs(*(record(step=step, loss=loss, trial_seed=trial) for trial, step, loss in values))
    assert curve(runs, LOSS, 0) == [(0, 2.0), (5, 4.0)]
    assert curve([], LOSS, 0) == []


def test_losses_that_are_not_drawn_are_told() -> None:
    high = [record((0.1, 0.1), step=step, loss=loss) for step, loss in ((0, 2.0), (5, 1e7), (9, 2e7))]
    assert undrawn(Board(as_runs(*high[:1]), [])) == ""
    assert undrawn(Board(as_runs(*high), [])) == (
        "Not drawn: 2 losses above 1e+06, of 1 runs that diverged (ERM on PACS)."
    )


def test_step_0_is_left_out_where_there_are_enough_others() -> None:
    records = [record(step=step, loss=1.0) for step in range(5)]
    assert [step for step, _ in curve(as_runs(*records), LOSS, 0)] == [1, 2, 3, 4]
    assert [step for step, _ in curve(as_runs(*records[:4]), LOSS, 0)] == [0, 1, 2, 3]


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    found = curve(as_runs(*(record(step=step, loss=1.0) for step in range(1000))), LOSS, 0)
    assert len(found) <= MOST_POINTS + 1
    assert found[0][0] == 1
    assert found[-1][0] == 999


def test_each_trials_chosen_run_and_no_pair() -> None:
    runs = [
        record((0.1, 0), (0, val), (0, val), trial_seed=trial, hparams_seed=seed)
        for trial, seed, val in ((0, 0, 0.9), (0, 1, 0.2), (1, 0, 0.3), (1, 1, 0.4), (2, 3, None), (2, 2, None))
    ]
    board = Board(as_runs(*runs, record(*[(0.5, 0.5)] * 3, test_envs=(0, 1), trial_seed=3)), [TRAINING])
    chosen = selected_runs(board, TRAINING, "PACS", "ERM", 0)
    assert [(run.trial_seed, run.hparams_seed) for run in chosen] == [(0, 0), (1, 1), (2, 2)]
    assert selected_by(board, TRAINING) == (
        "Mean over 4 trials of the run of 4 hparams seeds that training-domain validation set selects."
    )
    assert (
        selected_by(Board(as_runs(*runs[:1]), [TRAINING]), TRAINING)
        == "Mean over 1 trial of the runs with hparams seed 0."
    )
