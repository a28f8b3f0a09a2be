"""The flags of a run: one description for the parser, the command line, the record and the identity."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.run_args import EVERY_JOB, FLAGS, RunArgs, differences, identity, words
from domainbed_adm.scripts import train

#: DomainBed's flags of train, and what a record's args were at version 092dd1d.
DOMAINBEDS = {
    "data_dir": None,
    "dataset": "RotatedDigits",
    "algorithm": "ERM",
    "task": "domain_generalization",
    "hparams": None,
    "hparams_seed": 0,
    "trial_seed": 0,
    "seed": 0,
    "steps": None,
    "checkpoint_freq": None,
    "test_envs": [0],
    "output_dir": "train_output",
    "holdout_fraction": 0.2,
    "uda_holdout_fraction": 0.0,
    "skip_model_save": False,
    "save_model_every_checkpoint": False,
    "workers": None,
    "checkpoint_every": None,
}

#: Another value of each flag.
OTHERS: dict[str, Any] = {
    "data_dir": "-d a",
    "dataset": "PACS",
    "algorithm": "SAM",
    "task": "domain_adaptation",
    "hparams": '{"lr": 0.1}',
    "hparams_from": "top.json",
    "hparams_seed": 1,
    "trial_seed": 2,
    "seed": 3,
    "steps": 4,
    "epochs": 7,
    "checkpoint_freq": 5,
    "test_envs": (1, 2),
    "precision": "bf16",
    "compile": True,
    "augment_on": "device",
    "match_passes": "SAM",
    "batchnorm": "local",
    "output_dir": "a b",
    "holdout_fraction": 0.5,
    "uda_holdout_fraction": 0.25,
    "skip_model_save": True,
    "save_model_every_checkpoint": True,
    "workers": 1,
    "threads": 2,
    "device": "cpu",
    "devices": 2,
    "cache": True,
    "cache_dir": "d",
    "checkpoint_every": 6,
    "restart": True,
    "trace_difficulty": 64,
    "logger": ("csv", "wandb"),
    "tensorboard": True,
    "domainbed": "a checkout",
}
IDENTIFY = {
    "dataset",
    "algorithm",
    "task",
    "hparams_seed",
    "trial_seed",
    "seed",
    "steps",
    "epochs",
    "checkpoint_freq",
    "test_envs",
    "precision",
    "compile",
    "augment_on",
    "match_passes",
    "batchnorm",
    "holdout_fraction",
    "uda_holdout_fraction",
}


def test_a_record_has_domainbeds_flags_and_what_else_changes_its_numbers() -> None:
    assert RunArgs().recorded() == DOMAINBEDS | {
        "threads": 1,
        "epochs": None,
        "precision": "fp32",
        "compile": False,
        "augment_on": "cpu",
        "match_passes": None,
        "batchnorm": "sync",
        "devices": 1,
    }


def test_the_parser_reads_back_the_words_of_every_flag() -> None:
    assert OTHERS.keys() == FLAGS.keys()
    assert train.parse([]) == RunArgs()
    together = {
        name: value for name, value in OTHERS.items() if name not in {"epochs", "device"}
    }  # which go with no steps, no devices
    assert train.parse(words(together)) == RunArgs(**together)
    for name, value in OTHERS.items():
        assert train.parse(words({name: value})) == RunArgs(**{name: value})
    assert train.parse(["--trace_difficulty"]).trace_difficulty is True


@pytest.mark.parametrize("name", [field.name for field in fields(RunArgs)])
def test_what_identifies_a_run(name: str) -> None:
    ours, theirs = (identity(args.recorded(), {}) for args in (RunArgs(), RunArgs(**{name: OTHERS[name]})))
    told = differences(theirs, ours)
    assert (told is not None) is (name in IDENTIFY)
    assert told is None or told.startswith(f"--{name} (")


def test_a_flag_that_an_older_run_lacks_counts_as_its_default() -> None:
    older = {name: value for name, value in DOMAINBEDS.items() if name not in {"holdout_fraction", "test_envs"}}
    ours = identity(RunArgs().recorded(), {"lr": 1})
    assert differences(identity(older, {"lr": 1}), ours) is None
    assert differences(identity(older, {}), ours) == "hparam lr (absent there, 1 here)"
    bf16 = identity(RunArgs(precision="bf16").recorded(), {"lr": 1})
    assert differences(identity(older, {"lr": 1}), bf16) == "--precision (fp32 there, bf16 here)"
    half = identity(RunArgs(holdout_fraction=0.5).recorded(), {"lr": 1})
    assert differences(identity(older, {"lr": 1}), half) == "--holdout_fraction (0.2 there, 0.5 here)"


def test_a_flag_of_a_newer_version_identifies() -> None:
    theirs = identity({**DOMAINBEDS, "new": 1}, {})
    assert differences(theirs, identity(RunArgs().recorded(), {})) == "--new (1 there, absent here)"


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("seed", -1), ("holdout_fraction", 1.0), ("threads", 0), ("workers", -1), ("checkpoint_every", 0)],
)
def test_a_number_out_of_its_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name} must be a.* in .*, not {value}"):
        RunArgs(**{name: value})


def test_what_every_job_takes_says_how_to_run_but_for_flags_that_make_other_jobs() -> None:
    others = {"checkpoint_freq", "precision", "compile", "augment_on", "batchnorm"}
    assert set(EVERY_JOB) - {name for name in FLAGS if name not in IDENTIFY} == others


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert train.parse(["--output_dir=~/res"]).output_dir == "/home/me/res"


def test_no_torch_is_loaded() -> None:
    code = "import sys, domainbed_adm.run_args, domainbed_adm.scripts.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
