"""Sweeps and tables over sets for classification: official test sets are held out together, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.notes import missing_line, missing_runs
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.sweeping.flags import default_datasets
from domainbed_adm.sweeping.jobs import Sweep, check_sweep, held_out
from tests.runs import as_runs, record

SELECTED = SELECTION_METHODS["training-domain"]


@pytest.mark.parametrize("single", [True, False])
def test_official_test_sets_are_held_out_together(single: bool) -> None:
    assert list(held_out("Digits", 2, single)) == [[1]]
    assert list(held_out("DigitsC", 26, single)) == [list(range(1, 26))]
    sweep = Sweep(["Digits", "DigitsC"], ["ERM"], n_hparams=2, n_trials=3, single_test_envs=single)
    assert len(sweep.jobs("out")) == sweep.count() == 2 * 2 * 3


def test_a_sweep_over_all_datasets_is_one_of_domain_generalization() -> None:
    assert default_datasets() == [
        *("RotatedDigits", "ColoredDigits", "Letters", "ColoredMNIST", "RotatedMNIST"),
        *("VLCS", "PACS", "OfficeHome", "TerraIncognita"),
    ]


@pytest.mark.parametrize("name", [card.name for card in CARDS.values() if card.official_split and card.directory])
def test_the_data_must_be_there_before_a_job_runs(tmp_path: Path, name: str) -> None:
    card = CARDS[name]
    sweep = Sweep([name], ["ERM"], n_hparams=1, n_trials=1, data_dir=str(tmp_path))
    with pytest.raises(UserError, match="no folder"):
        check_sweep(sweep, needs_data=True)
    check_sweep(sweep, needs_data=False)
    (tmp_path / card.directory).mkdir()
    if card.train_of:
        with pytest.raises(UserError, match=f"dataset {card.train_of}: no folder"):
            check_sweep(sweep, needs_data=True)
        (tmp_path / CARDS[card.train_of].other_directory).mkdir()
    check_sweep(sweep, needs_data=True)


def corrupted(step: int, source: float, **more: object) -> dict:
    """A checkpoint on DigitsC, whose accuracies at a step are the environments' numbers in % plus the step in 0.1 %."""
    tests = [(env / 100 + step / 1000, None) for env in range(1, 26)]
    return record((0.9, source), *tests, dataset="DigitsC", test_envs=tuple(range(1, 26)), step=step, **more)


def test_each_corruption_is_reported_at_the_checkpoint_that_the_source_selects() -> None:
    runs = as_runs(corrupted(0, 0.3), corrupted(5, 0.8), corrupted(9, 0.7))
    board = Board(runs, [SELECTED])
    assert list(board.environments["DigitsC"]) == list(range(1, 26))
    assert board.environments["DigitsC"][25] == "pixelate-5"
    for env in range(1, 26):
        assert board.trials(SELECTED, "DigitsC", "ERM", env) == {0: pytest.approx(env / 100 + 0.005)}
    assert board.over_environments(SELECTED, "DigitsC", "ERM", whole_trials=True).mean == pytest.approx(13.5)
    assert missing_line(board, SELECTED) is None
    assert missing_runs(runs, [SELECTED]) == []


def test_digits_has_one_column() -> None:
    runs = as_runs(record((0.9, 0.8), (0.7, None), dataset="Digits", test_envs=(1,)))
    board = Board(runs, list(SELECTION_METHODS.values()))
    assert board.environments == {"Digits": {1: "test"}}
    assert board.over_environments(SELECTED, "Digits", "ERM").mean == pytest.approx(70)
    assert missing_runs(runs, SELECTION_METHODS.values()) == []


def test_a_run_that_is_missing_is_named() -> None:
    runs = as_runs(corrupted(0, 0.3), corrupted(0, 0.3, algorithm="SAM", trial_seed=1))
    envs = " ".join(map(str, range(1, 26)))
    assert missing_runs(runs, [SELECTED]) == [
        f"missing: ERM on DigitsC, test_envs {envs}, trial 1, hparams 0",
        f"missing: SAM on DigitsC, test_envs {envs}, trial 0, hparams 0",
    ]


def test_some_of_the_test_sets_are_not_what_is_reported() -> None:
    """As of another version, or of a host that knows no official splits."""
    (run,) = as_runs(record((0.9, 0.8), *[(0.5, 0.5)] * 25, dataset="DigitsC", test_envs=(1, 2, 3)))
    assert not run.alone
    assert SELECTED.sweep_acc([run], 1) is None
