"""Figures as functions: into given axes or a figure of their own, with the numbers that the tables have."""

from __future__ import annotations

import pytest

from domainbed_adm import UserError, figures, load_runs, train
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import comparisons
from domainbed_adm.model_selection import SELECTION_METHODS
from tests.runs import record, write

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
SELECTION = SELECTION_METHODS["training-domain"]


@pytest.fixture
def folder(tmp_path):
    """Two methods, two trials, three test environments of PACS."""
    for algorithm, better in (("ERM", 0.0), ("SAM", 0.1)):
        for env in range(3):
            for trial in range(2):
                about = {"algorithm": algorithm, "test_envs": (env,), "trial_seed": trial, "hparams": {}}
                records = [
                    record(
                        *[(0.3 + 0.1 * i + better + 0.01 * (env + trial + step), 0.5)] * 4, step=step, loss=1.0, **about
                    )
                    for i, step in enumerate((0, 10, 20))
                ]
                write(tmp_path / f"{algorithm}{env}{trial}", *records)
    return tmp_path


@pytest.fixture(autouse=True)
def closed():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def test_learning_curves_are_means_over_trials_and_environments(folder):
    axes = figures.learning_curves(folder, "test")
    assert [line.get_label() for line in axes.get_lines()] == ["ERM", "SAM"]
    runs = load_runs(folder)
    for line in axes.get_lines():
        own = [run for run in runs if run.algorithm == line.get_label()]
        assert line.get_xdata().tolist() == [0, 10, 20]
        expected = [100 * sum(run.accuracy(run.test_envs[0], "in")[i] for run in own) / len(own) for i in range(3)]
        assert line.get_ydata().tolist() == pytest.approx(expected)
    assert figures.learning_curves(runs, "loss").get_ylabel() == "Training loss"


def test_accuracy_is_that_of_the_table(folder):
    board = Board(load_runs(folder), [SELECTION])
    axes = figures.accuracy(folder)
    assert [label.get_text() for label in axes.get_yticklabels()] == board.algorithms
    expected = [board.over_environments(SELECTION, "PACS", name).mean for name in board.algorithms]
    assert axes.containers[0].lines[0].get_xdata().tolist() == pytest.approx(expected)


def test_paired_differences_are_those_of_compare(folder):
    from matplotlib.figure import Figure

    given = Figure().subplots()
    axes = figures.paired_differences(folder, "ERM", axes=given)
    assert axes is given
    row = comparisons(Board(load_runs(folder), [SELECTION]), SELECTION, "ERM", ["SAM"])[0]
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [row.difference.mean]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SAM"]


def test_difficulty_over_training(tmp_path):
    train(
        dataset="Debug28",
        algorithm="SSPL_ADM",
        steps=3,
        checkpoint_freq=1,
        trace_difficulty=8,
        hparams={"cnn_width": 8, "batch_size": 4},
        output_dir=tmp_path,
    )
    axes = figures.difficulty(tmp_path, "Loss")
    assert axes.get_lines()[0].get_xdata().tolist() == [0, 1, 2]
    assert figures.separability(tmp_path, "variation").get_title() == "coefficient of variation"
    with pytest.raises(UserError, match="unknown difficulty 'ADN'. Did you mean ADM?"):
        figures.difficulty(tmp_path, "ADN")


def test_what_cannot_be_drawn_is_one_line(folder):
    for draw, message in (
        (lambda: figures.learning_curves(folder, "tests"), "unknown measure 'tests'"),
        (lambda: figures.accuracy(folder, "orakel"), "unknown selection method 'orakel'"),
        (lambda: figures.paired_differences(folder, "ERN"), "unknown algorithm 'ERN'"),
        (lambda: figures.difficulty(folder), "none of these runs has a trace"),
        (lambda: figures.accuracy([]), "no runs were given"),
    ):
        with pytest.raises(UserError, match=message):
            draw()
