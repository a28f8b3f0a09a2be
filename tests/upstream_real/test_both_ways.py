"""Sweeps of either host, and both collectors on them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.sweeping.jobs import Sweep
from tests.extending import environment
from tests.upstream_real.conftest import CHECKOUT, REAL, tables

pytestmark = REAL
TWO = ["ERM", "SAM_SSPL_ADM"]


@pytest.fixture(scope="module")
def domainbeds_sweep(tmp_path_factory):
    """Two methods, each environment of Debug28 held out, launched by DomainBed's `local` launcher."""
    folder = tmp_path_factory.mktemp("theirs")
    flags = ["--algorithms", *TWO, "--datasets", "Debug28", "--steps", "2", "--hparams", '{"batch_size": 8}']
    flags += ["--n_hparams", "1", "--n_trials", "1", "--single_test_envs", "--data_dir", "none", "--skip_confirmation"]
    command = [sys.executable, "-m", "domainbed_adm.upstream", "sweep", "launch", "--domainbed", CHECKOUT, *flags]
    command += ["--command_launcher", "local", "--output_dir", str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def our_sweep(own_process, tmp_path, capsys):
    """Runs of our engine, of datasets that both hosts have and of one that DomainBed has from us."""
    for algorithm in TWO:
        for env in range(3):
            hparams = '{"cnn_width": 8, "batch_size": 4}'
            flags = ["--algorithm", algorithm, "--test_envs", str(env), "--steps", "2", "--hparams", hparams]
            for dataset in ("Debug28", "RotatedDigits"):
                run = ["--dataset", dataset, "--output_dir", str(tmp_path / f"{dataset}{algorithm}{env}")]
                assert main(["train", *flags, *run, "--skip_model_save"]) == 0
    return tmp_path


def test_the_launched_jobs_are_whole_and_lie_where_our_engine_would_put_them(domainbeds_sweep):
    assert len(list(domainbeds_sweep.glob("*/done"))) == 6
    same = Sweep(
        ["Debug28"],
        TWO,
        n_hparams=1,
        n_trials=1,
        steps=2,
        hparams='{"batch_size": 8}',
        single_test_envs=True,
        data_dir="none",
    )
    ours = {job.output_dir.name for job in same.jobs(domainbeds_sweep)}
    assert {path.parent.name for path in domainbeds_sweep.glob("*/done")} == ours


def test_both_collectors_on_domainbeds_sweep(host, domainbeds_sweep, capsys):
    theirs = tables(capsys, "upstream", "collect_results", "--input_dir", str(domainbeds_sweep))
    ours = tables(capsys, "collect_results", "--input_dir", str(domainbeds_sweep))
    assert all(name in theirs for name in TWO)
    assert ours == theirs


def test_both_collectors_on_our_engines_sweep(our_sweep, host, capsys):
    theirs = tables(capsys, "upstream", "collect_results", "--input_dir", str(our_sweep))
    ours = tables(capsys, "collect_results", "--input_dir", str(our_sweep))
    assert "Dataset: RotatedDigits" in theirs
    assert ours == theirs


def test_both_collectors_on_the_sweep_that_domainbed_ships(host, capsys, tmp_path):
    shipped = Path(CHECKOUT) / "domainbed/misc/test_sweep_data"
    for run in shipped.iterdir():
        (tmp_path / run.name).symlink_to(run)
    theirs = tables(capsys, "upstream", "collect_results", "--input_dir", str(tmp_path))
    assert tables(capsys, "collect_results", "--input_dir", str(tmp_path)) == theirs


def test_the_best_hparams_of_a_sweep(host, domainbeds_sweep, capsys):
    flags = ["--dataset", "Debug28", "--algorithm", "SAM_SSPL_ADM", "--test_env", "0"]
    out = tables(capsys, "upstream", "list_top_hparams", "--input_dir", str(domainbeds_sweep), *flags)
    assert "sspl_eta: 1.0" in out
    assert os.fspath(domainbeds_sweep) in out


def test_our_networks_give_the_logits_of_a_model_that_the_host_saved(host, domainbeds_sweep):
    import torch

    from domainbed_adm.training.model_file import read_model, restore_algorithm

    for path in sorted(domainbeds_sweep.glob("*/model.pkl")):
        saved = torch.load(path, weights_only=True)
        theirs = host.host.algorithms.get_algorithm_class(saved["args"]["algorithm"])(
            saved["model_input_shape"], saved["model_num_classes"], saved["model_num_domains"], saved["model_hparams"]
        )
        theirs.load_state_dict(saved["model_dict"])
        ours = restore_algorithm(read_model(path))
        x = torch.rand(4, *saved["model_input_shape"], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours.eval().predict(x), theirs.eval().predict(x), rtol=0, atol=1e-6)
