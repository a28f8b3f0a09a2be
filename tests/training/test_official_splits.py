"""Runs on a set for classification: what is held out, and that official test sets are evaluated whole."""

from __future__ import annotations

import pytest

from domainbed_adm.cli import main as cli
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import RunArgs
from domainbed_adm.training.batches import split_environments
from domainbed_adm.training.setup import set_up
from tests.runs import read_records

FAST = ["--hparams", '{"cnn_width": 8, "batch_size": 8}', "--steps", "2"]


def test_a_run_holds_out_the_official_test_sets_unless_told_otherwise():
    assert RunArgs(dataset="Digits").test_envs == (1,)
    assert RunArgs(dataset="DigitsC").test_envs == tuple(range(1, 26))
    assert RunArgs(dataset="CIFAR100C").recorded()["test_envs"] == list(range(1, 76))
    assert RunArgs(dataset="RotatedDigits").test_envs == RunArgs(dataset="a folder").test_envs == (0,)
    assert RunArgs(dataset="Digits", test_envs=(0,)).test_envs == (0,)


@pytest.mark.parametrize(
    ("dataset", "test_envs", "message"),
    [
        ("Digits", (0,), "Digits is trained on train: hold out test: --test_envs 1"),
        ("DigitsC", (1, 2), "DigitsC is trained on train: hold out noise-1 to pixelate-5: leave out --test_envs"),
        ("Digits", (0, 1), "--test_envs holds out all environments"),
        ("Digits", (2,), "--test_envs 2 is none of the environments: 0 train, 1 test"),
    ],
)
def test_nothing_else_is_held_out(dataset, test_envs, message):
    with pytest.raises(UserError, match=message):
        set_up(RunArgs(dataset=dataset, test_envs=test_envs))


def test_no_part_of_an_official_test_set_is_set_apart():
    with pytest.raises(UserError, match="official test sets are evaluated whole: --uda_holdout_fraction must be 0"):
        set_up(RunArgs(dataset="Digits", uda_holdout_fraction=0.1, task="domain_adaptation"))


def test_all_may_be_named_in_any_order():
    run = set_up(RunArgs(dataset="DigitsC", test_envs=tuple(reversed(range(1, 26))), hparams='{"cnn_width": 8}'))
    assert run.sources == [0]


def test_whole_environments_have_no_out_split_and_others_keep_theirs():
    plain, whole = (split_environments([10, 20, 30], [1, 2], 4, 0.2, 0.0, whole=own) for own in ((), (1, 2)))
    assert whole[0] == plain[0]
    for i, length in ((1, 20), (2, 30)):
        assert whole[i].out == whole[i].uda == []
        assert sorted(whole[i].in_) == list(range(length))


@pytest.mark.parametrize("algorithm", ["ERM", "SAM_SSPL_ADM", "SAGM_SPL_GDM", "FSAM_SSPL_Loss"])
def test_a_run_trains_on_one_source_and_records_the_whole_test_set(tmp_path, algorithm):
    flags = ["--dataset", "Digits", "--algorithm", algorithm, "--output_dir", str(tmp_path)]
    assert cli(["train", *flags, *FAST]) == 0
    for record in read_records(tmp_path):
        assert record["env1_in_acc"] * 449 == pytest.approx(round(record["env1_in_acc"] * 449), abs=1e-9)
        assert record["env1_out_acc"] is None
        assert record["env0_out_acc"] * 269 == pytest.approx(round(record["env0_out_acc"] * 269), abs=1e-9)
        assert record["args"]["test_envs"] == [1]


def test_difficulties_are_ranked_within_the_one_source(tmp_path):
    hparams = '{"cnn_width": 8, "batch_size": 8, "curriculum_scope": "domain"}'
    flags = ["--dataset", "Digits", "--algorithm", "SAM_SSPL_ADM", "--steps", "2", "--hparams", hparams]
    whole = ["--dataset", "Digits", "--algorithm", "SAM_SSPL_ADM", *FAST]
    assert cli(["train", *flags, "--output_dir", str(tmp_path / "domain")]) == 0
    assert cli(["train", *whole, "--output_dir", str(tmp_path / "batch")]) == 0
    losses = [[record["loss"] for record in read_records(tmp_path / name)] for name in ("domain", "batch")]
    assert losses[0] == losses[1]


def test_every_set_for_classification_trains_on_its_first_environment():
    cards = [card for card in CARDS.values() if card.official_split]
    assert len(cards) == 12
    assert all(card.environments[0] == "train" and card.test_envs[0] == 1 for card in cards)
    assert all(len(card.test_envs) == len(card.environments) - 1 for card in cards)
    assert all(card.test_envs is None for card in CARDS.values() if card not in cards)
