"""Commands that know the small host's algorithms: listings, models, sweeps."""

import json
import math
import subprocess
import sys

import pytest
import torch

from domainbed_adm import upstream
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS
from domainbed_adm.registry import get_method, load_checkout
from domainbed_adm.studying.plan import read_plan
from domainbed_adm.sweeping.plan import planned_jobs
from domainbed_adm.training.model_file import read_model, restore_algorithm
from domainbed_adm.upstream.methods import HostMethod
from tests.extending import environment
from tests.runs import read_records
from tests.upstream.conftest import HOST
from tests.upstream.hosting import fails, train, weights


def test_without_a_checkout_its_algorithms_are_not_known(tmp_path, capsys):
    error = fails(capsys, lambda: train(tmp_path / "run", "CORAL"))
    assert "CORAL is DomainBed's own: name a checkout of it by --domainbed DIR, or DOMAINBED_DIR" in error
    error = fails(capsys, lambda: train(tmp_path / "run", "Smoothed", "--domainbed", str(tmp_path)))
    assert "holds no folder domainbed" in error


def test_a_list_that_cannot_be_read(checkout):
    (checkout / "domainbed/algorithms.py").write_text("ALGORITHMS = [name for name in 'ab']\n")
    with pytest.raises(UserError, match="has no list domainbed.algorithms.ALGORITHMS"):
        load_checkout()


def test_a_model_is_loaded_where_the_checkout_is_named(checkout, tmp_path, monkeypatch, capsys):
    assert train(tmp_path / "run", "Hoarder") == 0
    path = tmp_path / "run/model.pkl"
    algorithm = restore_algorithm(read_model(path))
    assert not algorithm.training
    own = algorithm.state_dict()
    assert own.keys() == {name for name in weights(tmp_path / "run") if not name.startswith("inner.")}
    assert all(torch.equal(value, weights(tmp_path / "run")[name]) for name, value in own.items())
    monkeypatch.delenv(upstream.VARIABLE)
    for name in [name for name, method in METHODS.items() if isinstance(method, HostMethod)]:
        del METHODS[name]
    command = ["evaluate", str(tmp_path / "run"), "--json"]
    assert "unknown algorithm 'Hoarder'" in fails(capsys, lambda: main(command))
    assert main([*command, "--domainbed", str(checkout)]) == 0
    assert json.loads(capsys.readouterr().out)


def test_models_that_the_host_saved_are_loaded(checkout, tmp_path):
    """DomainBed's train script writes less than ours; its layers keep their names."""
    assert train(tmp_path, "Smoothed", steps=1) == 0
    contents = torch.load(tmp_path / "model.pkl", weights_only=True)
    for name in ("classes", "normalization", "model_weights"):
        del contents[name]
    torch.save(contents, tmp_path / "theirs.pkl")
    algorithm = restore_algorithm(read_model(tmp_path / "theirs.pkl"))
    assert all(torch.equal(value, weights(tmp_path)[name]) for name, value in algorithm.state_dict().items())


def test_registering_ours_in_the_host_leaves_its_own(checkout):
    load_checkout()
    host = upstream.register().host
    assert host.algorithms.ALGORITHMS[:2] == ["ERM", "Smoothed"]
    assert host.algorithms.ALGORITHMS.count("Smoothed") == 1
    assert "DomainBed_ERM" not in host.algorithms.ALGORITHMS


def test_another_checkouts_names_take_the_place_of_the_first(checkout):
    load_checkout()
    assert get_method("Hoarder").summary == "Holds state everywhere: not that."
    for name in [name for name in sys.modules if name.partition(".")[0] == "domainbed"]:
        del sys.modules[name]
    load_checkout(str(HOST))
    assert get_method("Smoothed").root == HOST
    with pytest.raises(UserError, match="unknown algorithm 'Hoarder'"):
        get_method("Hoarder")


def test_listings_have_them_behind_ours_and_load_no_torch(checkout):
    check = "import sys; from domainbed_adm.cli import main; sys.exit(main({}) or 9 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", check.format(["list", "algorithms", "--json", "--domainbed", str(HOST)])]
    listed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert [row["algorithm"] for row in rows][-2:] == ["Smoothed", "DomainBed_ERM"]
    assert [row["algorithm"] for row in rows][0] == "ERM"
    assert rows[-1]["cost both"] == "-"


def test_listed_hparams(checkout, capsys):
    assert main(["list", "hparams", "--algorithm", "Smoothed", "--json"]) == 0
    rows = {row["hparam"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["smoothing"]["searched"] == "by DomainBed"
    assert rows["smoothing"]["read by"] == "Smoothed"
    assert rows["lr"]["default"] == "0.001 (28 px); 5e-05 (larger)"


SWEEP = [
    "--datasets",
    "Debug28",
    "--algorithms",
    "ERM",
    "Smoothed",
    "--n_hparams",
    "1",
    "--n_trials",
    "1",
    "--steps",
    "2",
]
SWEEP += ["--hparams", '{"batch_size": 4, "cnn_width": 8}', "--single_test_envs", "--skip_confirmation"]


def test_a_sweep_passes_the_checkout_on_to_every_job(checkout, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    assert main(["sweep", "launch", str(folder), *SWEEP, "--plan_only"]) == 0
    monkeypatch.delenv(upstream.VARIABLE)
    assert all(f"--domainbed {checkout}" in job.command for job in planned_jobs(folder))
    place = ["--place", "3/6", "--max_jobs", "1"]  # the fourth job is the first of Smoothed
    assert main(["sweep", "work", str(folder), *place]) == 75
    assert {record["args"]["algorithm"] for record in read_records(folder)} == {"Smoothed"}
    assert main(["collect_results", "--input_dir", str(folder)]) == 0
    assert "Smoothed" in capsys.readouterr().out


def test_a_worker_may_find_the_checkout_elsewhere(checkout, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    assert main(["sweep", "launch", str(folder), *SWEEP, "--plan_only"]) == 0
    moved = checkout.rename(tmp_path / "moved")
    monkeypatch.delenv(upstream.VARIABLE)
    for name in [name for name, method in METHODS.items() if isinstance(method, HostMethod)]:
        del METHODS[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "domainbed"]:
        del sys.modules[name]
    place = ["--place", "3/6", "--max_jobs", "1"]
    assert f"{checkout} is no folder" in fails(capsys, lambda: main(["sweep", "work", str(folder), *place]))
    assert main(["sweep", "work", str(folder), *place, "--domainbed", str(moved)]) == 75


def test_a_sweep_of_unknown_hparams_starts_nothing(checkout, tmp_path, capsys):
    flags = [*SWEEP, "--hparams", '{"smothing": 1}']
    assert "unknown hparam 'smothing'" in fails(capsys, lambda: main(["sweep", "launch", str(tmp_path / "s"), *flags]))
    assert not (tmp_path / "s").exists()


def test_the_cost_of_a_sweep_leaves_them_out(checkout, tmp_path, capsys):
    assert main(["sweep", "launch", str(tmp_path / "s"), *SWEEP, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "Without Smoothed: DomainBed's algorithms do not say how many passes they spend" in out
    assert "nan" not in out
    assert not (tmp_path / "s").exists()


def test_the_jobs_of_a_study_know_the_checkout(checkout, tmp_path):
    plan = {"datasets": ["Debug28"], "smallest_difference": 1.0, "arms": {"erm": {"algorithm": "ERM"}}}
    plan["arms"]["theirs"] = {"algorithm": "Smoothed"}
    plan["primary"] = {"arm": "theirs", "baseline": "erm"}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    read = read_plan(tmp_path / "plan.yaml")
    assert math.isnan(read.passes("theirs"))
    assert all(job.flags["domainbed"] == str(checkout) for job in read.jobs(tmp_path)["theirs"])
