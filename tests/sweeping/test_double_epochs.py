"""``--double_epochs``: a rival at the price of two passes a step."""

import json

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.scripts.sweep import parse
from domainbed_adm.sweeping.jobs import Sweep, check_sweep
from domainbed_adm.sweeping.plan import add_to_plan, planned_jobs, planned_runs

CIFAR = {"datasets": ["CIFAR10"], "algorithms": ["ERM", "SAM"], "n_trials": 1, "n_hparams": 1}


def lengths(**flags):
    sweep = Sweep(**{**CIFAR, **flags})
    jobs = sweep.jobs("sweep")
    assert len(jobs) == sweep.count() == len({job.name for job in jobs})
    return [(job.train_args["algorithm"], job.train_args.get("epochs")) for job in jobs]


def test_the_algorithms_named_run_twice_as_long_as_well():
    assert lengths(double_epochs=["ERM"], epochs=10) == [("ERM", 10), ("ERM", 20), ("SAM", 10)]
    assert lengths(double_epochs=["ERM"]) == [("ERM", None), ("ERM", 400), ("SAM", None)]  # the dataset's are 200
    assert lengths(double_epochs=["ERM"], steps=5) == [("ERM", None), ("SAM", None)]
    assert lengths(double_epochs=["SAGM"], epochs=10) == [("ERM", 10), ("SAM", 10)]


def test_the_same_sweep_without_it_has_the_same_folders():
    names = [job.name for job in Sweep(**CIFAR, epochs=10).jobs("sweep")]
    assert [job.name for job in Sweep(**CIFAR, epochs=10, double_epochs=["ERM"]).jobs("sweep")][::2] == names


def test_the_plan_keeps_it(tmp_path):
    add_to_plan(tmp_path, Sweep(**CIFAR, epochs=10, double_epochs=["ERM"]))
    assert len(planned_jobs(tmp_path)) == 3
    assert [key[1] for key in planned_runs(tmp_path)] == ["ERM (10 epochs)", "ERM (20 epochs)", "SAM (10 epochs)"]
    add_to_plan(tmp_path, Sweep(**CIFAR, epochs=10, double_epochs=["ERM"]))
    assert len(json.loads((tmp_path / "sweep.json").read_text())["launches"]) == 1


def test_a_set_whose_length_is_in_steps_needs_epochs():
    sweep = Sweep(**{**CIFAR, "datasets": ["Digits"]}, double_epochs=["ERM"])
    with pytest.raises(UserError, match="--double_epochs needs --epochs on Digits, whose length is given in steps"):
        check_sweep(sweep, needs_data=False)
    with pytest.raises(UserError, match="unknown algorithm 'EMR'"):
        check_sweep(Sweep(**CIFAR, double_epochs=["EMR"]), needs_data=False)


def test_steps_take_the_place_of_a_named_sweeps_epochs():
    args = parse(["launch", "--sweep", "paper_cifar", "--steps", "5", "--output_dir", "x"])
    assert (args.steps, args.epochs, args.double_epochs) == (5, None, ["ERM"])
    args = parse(["launch", "--sweep", "smoke", "--epochs", "5", "--output_dir", "x"])
    assert (args.steps, args.epochs) == (None, 5)
