from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.scripts import train
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import (
    DONE,
    FAILED,
    INCOMPLETE,
    NOT_LAUNCHED,
    RUNNING,
    Job,
    Sweep,
    check_sweep,
    delete_incomplete,
    held_out,
)
from domainbed_adm.sweeping.plan import add_to_plan
from tests.system.test_lock import held_elsewhere

MNIST = Sweep(
    ["RotatedMNIST", "PACS", "VLCS"],
    ["ERM", "SAM_x"],
    n_hparams=2,
    n_trials=2,
    data_dir="/data",
    single_test_envs=False,
)
DIGITS = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)

# Printed by DomainBed's own sweep module (b93c22a) for the flags of MNIST: number of the job, what it is, seed, folder.
DOMAINBEDS = [
    (0, ("RotatedMNIST", "ERM", [0], 0, 0), 8951917, "c2004c02facc001986d69a0989c139c0"),
    (1, ("RotatedMNIST", "ERM", [0], 1, 0), 976490518, "4e6412df601d615410a21294a5d4c187"),
    (5, ("RotatedMNIST", "ERM", [0, 2], 1, 0), 340536321, "659c6310c265bc0d2de012b874ca9f9f"),
    (-1, ("VLCS", "SAM_x", [3], 1, 1), 2144043449, "1c3f67921070d3e994f554d283e0c4a1"),
]


@pytest.mark.parametrize(("index", "what", "seed", "folder"), DOMAINBEDS)
def test_jobs_are_domainbeds(index: int, what: tuple, seed: int, folder: str) -> None:
    jobs = MNIST.jobs("out")
    args = jobs[index].train_args
    names = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
    assert tuple(args[name] for name in names) == what
    assert (args["seed"], jobs[index].output_dir) == (seed, Path("out") / folder)
    assert len(jobs) == MNIST.count() == 328


def test_steps_hparams_and_holdout_are_in_the_hash_as_in_domainbed() -> None:
    sweep = Sweep(
        ["ColoredMNIST"],
        ["ERM"],
        n_hparams_from=1,
        n_hparams=3,
        n_trials=1,
        steps=300,
        hparams='{"lr": 0.01}',
        holdout_fraction=0.5,
        data_dir="my data",
    )
    jobs = sweep.jobs("out")
    assert [jobs[0].output_dir.name, jobs[-1].output_dir.name] == [
        "346d2700e1a576967f578c108e8cd776",
        "bfa6f51ce530b7296a8a9fdb08f64a8c",
    ]
    assert jobs[0].command == (
        f"{shlex.quote(sys.executable)} -m domainbed_adm.scripts.train --algorithm ERM --data_dir 'my data' "
        "--dataset ColoredMNIST --holdout_fraction 0.5 --hparams '{\"lr\": 0.01}' --hparams_seed 1 "
        "--output_dir out/346d2700e1a576967f578c108e8cd776 --seed 105328708 --steps 300 "
        "--task domain_generalization --test_envs 0 --trial_seed 0"
    )


def test_a_value_that_begins_with_a_dash_is_no_flag() -> None:
    odd = replace(DIGITS, data_dir="-d ata").jobs("-odd")[0]
    words = shlex.split(odd.command)[3:]
    assert f"--output_dir=-odd/{odd.output_dir.name}" in words
    assert "--data_dir=-d ata" in words
    args = train.build_parser().parse_args(words)
    assert (args.output_dir, args.data_dir, args.test_envs) == (str(odd.output_dir), "-d ata", [0])
    plain = replace(DIGITS, data_dir="-d ata").jobs("odd")[0]
    assert plain.output_dir.name == odd.output_dir.name
    assert f" --output_dir odd/{plain.output_dir.name} " in plain.command


def test_without_data_dir_there_is_no_data_dir() -> None:
    assert all("data_dir" not in job.train_args for job in DIGITS.jobs("out"))


def test_every_word_of_a_command_is_quoted() -> None:
    evil = "a b; $(touch x) 'q'"
    words = shlex.split(Job({"data_dir": evil, "test_envs": [1, "2; 3"]}, Path(evil)).command)
    assert words[words.index("--data_dir") + 1] == evil
    assert words[words.index("--test_envs") + 1 :] == ["1", "2; 3"]
    assert words[words.index("--output_dir") + 1].startswith(evil + "/")


def test_train_understands_the_command() -> None:
    sweep = replace(DIGITS, data_dir="my data", steps=3, hparams='{"lr": 0.01}', single_test_envs=False)
    for job in sweep.jobs("my out"):
        args = vars(train.build_parser().parse_args(shlex.split(job.command)[3:]))
        assert {name: args[name] for name in job.train_args} == job.train_args
        assert args["output_dir"] == str(job.output_dir)


def test_pairs_stand_behind_their_first_and_never_hold_out_all() -> None:
    assert list(held_out("VLCS", 3, single=False)) == [[0], [0, 1], [0, 2], [1], [1, 2], [2]]
    assert list(held_out("VLCS", 3, single=True)) == [[0], [1], [2]]
    assert list(held_out("VLCS", 2, single=False)) == [[0], [1]]


def test_states_and_delete_incomplete_touches_nothing_else(tmp_path: Path) -> None:
    done, incomplete, running, failed, absent, *_ = jobs = DIGITS.jobs(tmp_path)
    for job in (done, incomplete, running):
        (job.output_dir / "more").mkdir(parents=True)
        (job.output_dir / "out.txt").touch()
    for name in ("notes", "0" * 32):
        (tmp_path / name).mkdir()
    (done.output_dir / "done").write_text("done")
    failures.write(failed.output_dir, 1, ["no luck"], 1)
    failures.write(done.output_dir, 1, ["an earlier attempt"], 1)
    with held_elsewhere(running.output_dir):
        states = [job.state for job in (done, incomplete, running, failed, absent)]
        assert states == [DONE, INCOMPLETE, RUNNING, FAILED, NOT_LAUNCHED]
        assert delete_incomplete(jobs) == 2
        assert (running.output_dir / "out.txt").exists()
        left = [done.output_dir.name, running.output_dir.name, "notes", "0" * 32]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)
    assert running.state == INCOMPLETE


@pytest.mark.parametrize("meanwhile", ["started", "done"])
def test_a_job_that_starts_or_ends_after_it_was_found_incomplete_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    job = DIGITS.jobs(tmp_path)[0]
    job.output_dir.mkdir()
    (job.output_dir / ("done" if meanwhile == "done" else "out.txt")).touch()
    monkeypatch.setattr(Job, "state", INCOMPLETE)
    with held_elsewhere(job.output_dir) if meanwhile == "started" else contextlib.nullcontext():
        assert delete_incomplete([job]) == 0
    assert len(list(job.output_dir.iterdir())) == (2 if meanwhile == "started" else 1)


def test_labels_name_what_varies() -> None:
    sweep = replace(DIGITS, n_hparams=2, n_trials=2, single_test_envs=False)
    labels = [job.label for job in sweep.jobs("out")]
    assert labels[0] == "ERM on RotatedDigits, test_envs 0"
    assert "ERM on RotatedDigits, test_envs 0 1, hparams 1, trial 1" in labels
    assert len(set(labels)) == len(labels)


def own_dataset(root: Path, *domains: str) -> Sweep:
    for domain in domains:
        (root / "Mine" / domain).mkdir(parents=True)
    return replace(DIGITS, datasets=["Mine"], data_dir=str(root))


def test_environments_of_an_own_dataset_are_its_folders(tmp_path: Path) -> None:
    sweep = own_dataset(tmp_path, "ink", "oil", "pen", ".cache")
    check_sweep(sweep, needs_data=True)
    assert len(sweep.jobs("out")) == 3


def test_a_known_dataset_must_hold_its_environments_only_where_it_runs(tmp_path: Path) -> None:
    for domain in ("art", "photo"):
        (tmp_path / "PACS" / domain).mkdir(parents=True)
    sweep = replace(DIGITS, datasets=["PACS"], data_dir=str(tmp_path))
    check_sweep(sweep, needs_data=False)
    with pytest.raises(UserError, match=r"PACS has 4 domains \(A, C, P, S\), but .*PACS holds 2 folders: art, photo"):
        check_sweep(sweep, needs_data=True)


WRONG = [
    ({"algorithms": ["SAM_SSPL_ADN"]}, "unknown algorithm 'SAM_SSPL_ADN'. Did you mean SAM_SSPL_ADM?"),
    ({"datasets": ["RotatedDigit"]}, "unknown dataset 'RotatedDigit'. Did you mean RotatedDigits?"),
    ({"datasets": ["Mine"], "data_dir": "/nowhere"}, "data_dir /nowhere is no folder"),
    ({"datasets": ["PACS"]}, "dataset PACS is read from disk: give --data_dir"),
    ({"datasets": ["ColoredMNIST"]}, "dataset ColoredMNIST is read from disk: give --data_dir"),
    ({"hparams": "[1]"}, "--hparams must be a JSON object"),
    ({"hparams": "{lr: 1}"}, "--hparams is not JSON"),
    ({"hparams": '{"rhoo": 1}'}, "unknown hparam 'rhoo'"),
    ({"hparams": '{"rho": -1}', "algorithms": ["ERM", "SAM"]}, "hparam rho must be a number in [0, "),
    ({"hparams": '{"lr": NaN}'}, "hparam lr must be a number in (0, "),
    ({"hparams": '{"batch_size": 0}'}, "hparam batch_size must be an integer in [1, "),
    ({"n_trials": 0}, "--n_trials must be at least 1, not 0"),
    ({"n_hparams": 0}, "--n_hparams_from must be at least 0 and below --n_hparams, not 0 with --n_hparams 0"),
    ({"n_hparams_from": -1}, "--n_hparams_from must be at least 0 and below --n_hparams, not -1 with --n_hparams 1"),
    ({"steps": 0}, "--steps must be an integer in [1, 1e+09], not 0"),
    ({"steps": 10**400}, "--steps must be an integer in [1, 1e+09], not 1000"),
    ({"n_trials": 10**9}, " jobs, more than 1,000,000: give fewer trials or hparams"),
    ({"n_hparams": 10**400}, " jobs, more than 1,000,000: give fewer trials or hparams"),
    ({"holdout_fraction": 1.0}, "--holdout_fraction must be a number in [0, 1), not 1.0"),
    ({"holdout_fraction": float("nan")}, "--holdout_fraction must be a number in [0, 1), not nan"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_mistake_is_named_before_anything_runs(change: dict, message: str) -> None:
    check_sweep(DIGITS, needs_data=True)
    with pytest.raises(UserError) as caught:
        check_sweep(replace(DIGITS, **change), needs_data=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_domain_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two domains"):
        check_sweep(own_dataset(tmp_path, "ink"), needs_data=True)


def test_hparams_of_other_methods_are_allowed() -> None:
    check_sweep(replace(DIGITS, hparams='{"rho": 0.1}'), needs_data=True)


def test_an_output_dir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(UserError, match=f"--output_dir {folder} cannot be written: "):
            add_to_plan(folder, DIGITS)
