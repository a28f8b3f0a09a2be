"""Sampling by epoch: each sample once, whoever loads it; and how long a run of so many epochs is."""

import json
from collections import Counter

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.training.sampling import Sampler, steps_per_epoch
from tests.training.test_batches import pieces, stream
from tests.training.test_resume import assert_same, outcome, train, train_killed

EPOCH = {"batch_size": 6, "class_balanced": False, "sampling": "epoch"}


@pytest.mark.parametrize(
    ("size", "drop_last", "steps"), [(12, False, 2), (13, False, 3), (13, True, 2), (5, True, 1), (5, False, 1)]
)
def test_steps_of_an_epoch(size, drop_last, steps):
    assert steps_per_epoch(size, EPOCH | {"drop_last": drop_last}) == steps


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_shows_each_sample_once_in_another_order_each_time(drop_last):
    sampler, keys = Sampler(7, EPOCH | {"drop_last": drop_last}), list(range(100, 120))
    steps = 3 if drop_last else 4
    epochs = [[sampler.draw(0, keys, step) for step in range(e * steps, (e + 1) * steps)] for e in range(50)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [6, 6, 6] + [2] * (not drop_last)
        shown = Counter(key for batch in batches for key in batch)
        assert set(shown.values()) == {1}
        assert len(shown) == (18 if drop_last else 20)
    assert len({tuple(epoch[0]) for epoch in epochs}) == 50
    first = Counter(epoch[0][0] for epoch in epochs)  # of 20, in 50 draws: one more than 12 times has chance 1e-5
    assert max(first.values()) < 12


def test_a_step_depends_neither_on_earlier_ones_nor_on_other_environments():
    keys, later = list(range(20)), Sampler(7, EPOCH)
    in_order = [later.draw(0, keys, step) for step in range(9)]
    assert [Sampler(7, EPOCH).draw(0, keys, step) for step in range(9)] == in_order
    assert Sampler(7, EPOCH).draw(1, keys, 0) != in_order[0]
    assert Sampler(8, EPOCH).draw(0, keys, 0) != in_order[0]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_whatever_the_number_of_workers(workers):
    """Environment 0 has 16 samples to train on, three steps of six; the schedule of ``stream`` has five steps."""
    batches = [batch for batch in stream(workers, sampling="epoch") if hasattr(batch.task, "step")]
    of_first = [pieces(batch)[0][2].tolist() for batch in batches]
    assert [len(index) for index in of_first] == [6, 6, 4, 6, 6]
    assert len({key for index in of_first[:3] for key in index}) == 16


def test_class_balanced_epochs_are_refused():
    with pytest.raises(UserError, match="class_balanced draws with replacement"):
        Sampler(0, EPOCH | {"class_balanced": True})


@pytest.mark.parametrize("name", ["ERM", "SAM_SSPL_ADM"])
def test_epochs_resume_exactly_in_their_middle(tmp_path, monkeypatch, name):
    """13 samples to train on, batches of 3: the fifth step has one sample and ends the epoch."""
    options = {"sampling": "epoch", "weighting": "memory"} if name != "ERM" else {"sampling": "epoch"}
    assert train(tmp_path / "whole", name, **options) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, "--checkpoint_every", "1", **options)
    assert train(tmp_path / "broken", name, "--checkpoint_every", "1", **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_run_of_two_epochs(tmp_path):
    flags = ["--dataset", "Debug28", "--epochs", "2", "--output_dir", str(tmp_path / "run")]
    hparams = {"cnn_width": 8, "batch_size": 3, "sampling": "epoch"}
    assert main(["train", *flags, "--hparams", json.dumps(hparams)]) == 0
    records, _ = outcome(tmp_path / "run")
    assert [record["step"] for record in records] == [0, 9]  # 13 samples are five steps


def test_steps_and_epochs_together_are_refused(tmp_path, capsys):
    assert main(["train", "--steps", "3", "--epochs", "2", "--output_dir", str(tmp_path / "run")]) == 2
    assert "--steps and --epochs both say how long to train: give one" in capsys.readouterr().err
