"""Environments by number and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainbed_adm.datasets.environment_names import number_or_name, numbers_of
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import RunArgs
from domainbed_adm.scripts import sweep, train
from domainbed_adm.sweeping.flags import described_sweep


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name, domains in {"Fruit": "apple Pear", "PACS": "art_painting cartoon photo sketch"}.items():
        for domain in domains.split():
            (tmp_path / name / domain).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "words", "numbers"),
    [
        ("PACS", ["S", "0"], [3, 0]),
        ("PACS", ["sketch", "Art_Painting", "c"], [3, 0, 1]),
        ("Fruit", ["apple"], [1]),  # "Pear" comes first in sorted order
        ("Fruit", ["PEAR", "apple"], [0, 1]),
        ("RotatedDigits", ["2"], [2]),
        ("ColoredDigits", ["-90%"], [2]),
        ("Fruit", ["7", "-1"], [7, -1]),  # told to be none of them where the dataset is known
    ],
)
def test_numbers_stay_and_names_are_the_cards_or_the_folders(
    data_dir: Path, dataset: str, words: list[str], numbers: list[int]
) -> None:
    assert numbers_of([number_or_name(word) for word in words], dataset, data_dir) == numbers


def test_names_need_no_data_where_the_card_has_them() -> None:
    assert train.parse(["--dataset", "PACS", "--test_envs", "S", "C"]).test_envs == (3, 1)
    assert RunArgs(dataset="VLCS", test_envs=("v", 0)).recorded()["test_envs"] == [3, 0]  # type: ignore[arg-type]


def test_a_wrong_name_lists_all_and_the_nearest(data_dir: Path) -> None:
    with pytest.raises(UserError) as told:
        train.parse(["--dataset", "Fruit", "--data_dir", str(data_dir), "--test_envs", "aple"])
    assert str(told.value) == "'aple' is no environment of Fruit: 0 Pear, 1 apple. Did you mean apple?"


def test_a_sweep_holds_out_what_is_named(data_dir: Path) -> None:
    flags = ["launch", "--output_dir", "s", "--data_dir", str(data_dir), "--algorithms", "ERM", "--n_trials", "1"]
    flags += ["--n_hparams", "1", "--test_envs", "C"]
    of_one = described_sweep(sweep.parse([*flags, "--datasets", "PACS"]), needs_data=False)
    assert [job.train_args["test_envs"] for job in of_one.jobs("s")] == [[1]]
    with pytest.raises(UserError, match=r"names other environments of each dataset \(PACS 1; VLCS 0\)"):
        described_sweep(sweep.parse([*flags, "--datasets", "PACS", "VLCS"]), needs_data=False)
