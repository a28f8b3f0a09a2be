"""What a sweep costs before it runs, against counts by hand."""

import json
import subprocess
import sys
import time

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import random_hparams
from domainbed_adm.sweeping.cost import job_cost, show_cost
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.sweeping.rates import given_rate, measured_rates
from domainbed_adm.system.seeding import seed_hash
from tests.runs import record, write

ONE = {"n_trials": 1, "n_hparams": 1, "single_test_envs": True}


def first_job(**flags):
    return Sweep(**{"datasets": ["CIFAR10"], "algorithms": ["ERM"], **ONE, **flags}).jobs("sweep")[0]


@pytest.mark.parametrize(("algorithm", "passes"), [("ERM", 3), ("SAM", 6), ("SAM_SSPL_GDM", 7), ("SAM_SSPL_ADM", 8)])
def test_an_epoch_is_every_training_image_once(algorithm, passes):
    cost = job_cost(first_job(algorithms=[algorithm], epochs=10, holdout_fraction=0.0))
    assert cost.training == pytest.approx(passes * 10 * 50_000)
    # 3,910 steps of 128, evaluated at step 0 and at the last one, 3,909
    assert cost.evaluation == 2 * 60_000
    assert cost.network == "ResNet-18 for 32 px, fp32"


def test_the_out_split_is_not_trained_on_and_hparams_count():
    flags = {"epochs": 1, "hparams": '{"adm_estimator": "linear", "weighting": "descent", "backbone": "wrn_28_10"}'}
    cost = job_cost(first_job(algorithms=["SAM_SSPL_ADM"], precision="bf16", **flags))
    assert (cost.passes, cost.training, cost.network) == (6, pytest.approx(6 * 40_000), "WRN-28-10, bf16")


def test_steps_are_batches_of_each_source_environment():
    cost = job_cost(first_job(datasets=["PACS"], steps=301, hparams='{"resnet18": true}'))
    assert cost.training == 3 * 301 * 3 * 32
    assert cost.evaluation == 2 * 9991
    assert cost.network == "ResNet-18, 224 px, fp32"
    for averaging, evaluations in (("ema", 4), ("swad", 3)):
        given = f'{{"resnet18": true, "averaging": "{averaging}", "flatness_start": 0.5}}'
        averaged = job_cost(first_job(datasets=["PACS"], algorithms=["SAM"], steps=301, hparams=given))
        assert (averaged.evaluation, averaged.passes) == (evaluations * 9991, 4.5)
    pair = Sweep(["PACS"], ["ERM"], n_trials=1, n_hparams=1, steps=301).jobs("sweep")[1]
    assert pair.train_args["test_envs"] == [0, 1]
    assert job_cost(pair).training == 3 * 301 * 2 * 32


def test_the_batch_is_the_one_that_the_hparams_seed_draws():
    job = Sweep(["PACS"], ["SAM"], n_trials=2, n_hparams=4, steps=10, single_test_envs=True).jobs("sweep")[-1]
    assert (job.train_args["hparams_seed"], job.train_args["trial_seed"]) == (3, 1)
    batch = random_hparams("SAM", "PACS", seed_hash(3, 1))["batch_size"]
    assert job_cost(job).training == 6 * 10 * 3 * batch


def test_images_that_nobody_knows_are_said_to_be_left_out(capsys):
    show_cost([first_job(datasets=["Digits"], steps=10)], None)
    out = capsys.readouterr().out
    assert "Without evaluation on Digits, whose images are not counted here" in out
    assert "For hours give --images_per_second" in out


def test_hours_at_a_given_rate(capsys):
    command = ["sweep", "launch", "--sweep", "fsam_cifar", "--output_dir", "none", "--dry_run"]
    assert main([*command, "--images_per_second", "5000"]) == 0
    out = capsys.readouterr().out
    rows = {line.strip().split("  ")[0]: line.split()[-1] for line in out.splitlines() if line.strip()}
    # 6 runs x 200 epochs x 50,000 images x 6 F and 21 evaluations of 60,000, 1 / 15,000 s each F
    assert float(rows["SAM"]) == pytest.approx(6 * (200 * 50_000 * 6 + 21 * 60_000) / 15_000 / 3600, rel=2e-3)
    assert {"ERM (200 epochs)", "ERM (400 epochs)", "FSAM"} <= rows.keys()
    assert "Assumed: plain training passes 5000 images a second" in out


def test_rates_of_finished_runs_are_those_of_their_network(tmp_path, capsys):
    hparams = {"backbone": "cifar_resnet18", "batch_size": 100}
    for algorithm, seconds in (("ERM", 0.3), ("SAM", 1.2)):
        made = {"provenance": {"device": "GPU X", "samples": [10, 20]}, "hparams": hparams, "step_time": seconds}
        about = {"dataset": "CIFAR10", "test_envs": (1,), "algorithm": algorithm}
        write(tmp_path / algorithm, *(record((0.9, 0.9), (0.9, None), step=step, **about, **made) for step in (0, 9)))
    rates = measured_rates(tmp_path)
    assert rates.seconds_of("ResNet-18 for 32 px, fp32", "ERM") == pytest.approx(0.3 / 300)
    assert rates.seconds_of("ResNet-18 for 32 px, fp32", "SAM") == pytest.approx(1.2 / 600)
    assert rates.seconds_of("ResNet-18 for 32 px, fp32", "FSAM") == pytest.approx(0.0015)  # the median of all
    assert rates.seconds_of("WRN-28-10, fp32", "ERM") is None
    assert rates.sizes == {"CIFAR10": (10, 20)}
    show_cost([first_job(epochs=1), first_job(epochs=1, hparams='{"backbone": "wrn_28_10"}')], rates)
    out = capsys.readouterr().out
    assert "No rate for WRN-28-10, fp32: 1 jobs are not in the sum; measured: ResNet-18 for 32 px, fp32" in out
    assert "on GPU X" in out


def test_rates_of_the_benchmarks(tmp_path):
    csv = tmp_path / "step.csv"
    csv.write_text(
        "# device: EPYC\n# network: ResNet-18 from scratch, 224 px, fp32, 3 domains x 4 samples\n"
        "method,weighting,passes_F,ms\nERM,-,3,360\nSAM,-,6,1440\n"
    )
    rates = measured_rates(csv)
    assert rates.seconds_of("ResNet-18, 224 px, fp32", "ERM") == pytest.approx(0.01)
    assert rates.seconds_of("ResNet-18, 224 px, fp32", "SAM") == pytest.approx(0.02)
    row = {"network": "resnet50", "precision": "bf16", "algorithm": "SAM", "images_per_s": "100"}
    rows = [row | {"compiled": "no"}, row | {"compiled": "yes", "images_per_s": "900"}]
    contents = {"facts": {"batches": "3 domains x 32, 224 px"}, "parts": {"steps-resnet50": rows, "run": [{}]}}
    gpu = tmp_path / "gpu.json"
    gpu.write_text(json.dumps(contents))
    assert measured_rates(gpu).seconds_of("ResNet-50, 224 px, bf16", "SAM") == pytest.approx(1 / 600)


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"facts": {"batches": "none"}, "parts": {}}'])
@pytest.mark.parametrize("name", ["x.json", "x.csv"])
def test_a_file_of_something_else_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="is not a folder of runs, or a file of benchmarks"):
        measured_rates(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        measured_rates(tmp_path / "none.csv")


def test_a_rate_is_a_number_above_0_and_for_a_dry_run(capsys):
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--images_per_second must be above 0"):
            given_rate(wrong)
    command = ["sweep", "launch", "--sweep", "fsam_cifar", "--output_dir", "none", "--images_per_second", "1"]
    assert main(command) == 2
    assert "are for --dry_run" in capsys.readouterr().err


def test_it_stays_fast_at_the_full_grid_and_imports_no_torch():
    code = (
        "import sys, time\n"
        "from domainbed_adm.cli import main\n"
        "main('sweep launch --sweep full_grid --output_dir none --dry_run --images_per_second 9'.split())\n"
        "print(time.process_time(), 'torch' in sys.modules)"
    )
    start = time.monotonic()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, torch = shown.split("\n")[-2].split()
    assert torch == "False"
    assert "67200 jobs" in shown
    assert float(seconds) < 8, time.monotonic() - start  # CPU seconds; 3 to 5 on one core
