from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
import numpy as np

from domainbed_adm.analysis.result_files import load_flatness, load_landscapes
from domainbed_adm.cli import main
from tests.analysis.trained import train

QUICK = ["--samples", "8", "--eigenvalues", "2", "--max_vectors", "2", "--directions", "2"]
POINTS = ["--samples", "8", "--points", "3", "--plane_points", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ERM and SAM, with models of every checkpoint; and a run that kept none."""
    folder = tmp_path_factory.mktemp("trained")
    for algorithm in ("ERM", "SAM"):
        train(folder, algorithm, "--save_model_every_checkpoint")
    train(folder, "SPL_Loss", "--skip_model_save")
    return folder


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy of them to write into."""
    return Path(shutil.copytree(trained, tmp_path / "sweep"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_hessian_of_a_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(sweep)
    assert main(["analyze", "hessian", str(sweep), *QUICK, "--output", str(sweep / "flatness.svg")]) == 0
    told = capsys.readouterr()
    assert "warning: 1 of 3 runs have no model.pkl: left out" in told.err
    assert f"SAM, test env 0, trial 0: {sweep}/SAM/hessian.json (" in told.err
    rows = [line for line in told.out.splitlines() if line.strip().startswith(("ERM, ", "SAM, "))]
    assert len(rows) == 2 * (5 + 1 + 1)
    for row, name in zip(rows, ("15 (source)", "30 (source)", "45 (source)"), strict=False):
        assert name in row
    assert "0 (test)" in rows[6]
    assert "at rho = 0.05, in nats" in told.out
    assert "the network has no BatchNorm; no dropout" in told.out
    after = files(sweep)
    assert after.keys() - before.keys() == {"ERM/hessian.json", "SAM/hessian.json", "flatness.svg"}
    assert {name: after[name] for name in before} == before
    found = load_flatness(sweep)
    assert [one.algorithm for one in found] == ["ERM", "SAM"]
    for one in found:
        assert [domain.n for domain in one.domains] == [8, 8, 8, 8, 8, 40, 8]
        assert all(len(domain.eigenvalues) == 2 for domain in one.domains)
        assert one.of("pooled")[0].loss == pytest.approx(np.mean([domain.loss for domain in one.of("source")]))


def test_hessian_as_json_of_another_checkpoint_in_float64(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--checkpoint", "model_step0.pkl", "--double", "--rho", "0.1", "--json", "--eigenvalues", "1"]
    flags += ["--batch_size", "3"]
    assert main(["analyze", "hessian", str(sweep / "SAM"), *QUICK, *flags]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == json.loads((sweep / "SAM" / "hessian_step0.json").read_text())
    assert (found["model"], found["dtype"], found["rho"]) == ("model_step0.pkl", "float64", 0.1)
    assert found["batch_size"] == 3
    assert main(["analyze", "hessian", str(sweep / "SAM"), *QUICK, *flags[:-1], "8"]) == 0
    again = json.loads(capsys.readouterr().out)[0]
    assert main(["analyze", "hessian", str(sweep / "SAM"), *QUICK, *flags, "--rho", "0.02"]) == 0
    nearer = json.loads(capsys.readouterr().out)[0]
    for near, far in zip(nearer["domains"], found["domains"], strict=True):
        assert far["sharpness"] > 3 * near["sharpness"]
        assert far["random_rise"] != near["random_rise"]
    for one, other in zip(found["domains"], again["domains"], strict=True):
        assert one["eigenvalues"] == pytest.approx(other["eigenvalues"], rel=1e-6)  # mini-batches change no loss here
        assert one["trace"] == pytest.approx(other["trace"], rel=1e-6)


def test_eigenvalues_that_did_not_converge_are_told(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--max_restarts", "1", "--tolerance", "1e-12", "--eigenvalues", "9", "--algorithms", "ERM"]
    assert main(["analyze", "hessian", str(sweep), *QUICK, *flags]) == 0
    told = capsys.readouterr()
    assert "eigenvalues of " in told.err
    assert "not all converged: more --max_restarts" in told.err
    assert "(not converged)" in told.out
    assert not all(domain.converged for domain in load_flatness(sweep)[0].domains)


def test_landscape_of_two_runs_along_the_same_directions(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(sweep)
    assert main(["analyze", "landscape", str(sweep), *POINTS]) == 0
    told = capsys.readouterr()
    assert told.out == f"figure: {sweep}/landscape.svg\n"
    after = files(sweep)
    assert after.keys() - before.keys() == {"ERM/landscape.npz", "SAM/landscape.npz", "landscape.svg"}
    assert {name: after[name] for name in before} == before
    found = load_landscapes(sweep)
    assert main(["analyze", "hessian", str(sweep), *QUICK]) == 0
    for landscape, flatness in zip(found, load_flatness(sweep), strict=True):
        assert landscape.alphas.tolist() == landscape.alphas_2d.tolist() == [-1, 0, 1]
        assert landscape.source_1d[1] == landscape.source_2d[1, 1] == flatness.of("pooled")[0].loss
        assert landscape.test_1d[1] == landscape.test_2d[1, 1] == flatness.of("test")[0].loss
        assert landscape.test_name == "0"
        assert landscape.source_2d[:, 1].tolist() == landscape.source_1d.tolist()  # the first direction is the same
        assert landscape.source_2d[1].tolist() != landscape.source_1d.tolist()  # the second is another
    assert main(["analyze", "landscape", str(sweep / "SAM"), *POINTS, "--radius", "0.5"]) == 0
    assert (sweep / "SAM" / "landscape.svg").exists()
    assert load_landscapes(sweep / "SAM")[0].alphas.tolist() == [-0.5, 0, 0.5]


def test_the_seed_makes_the_directions(sweep: Path) -> None:
    found = []
    for seed in ("0", "1"):
        assert main(["analyze", "landscape", str(sweep / "SAM"), *POINTS, "--samples", "240", "--seed", seed]) == 0
        found += load_landscapes(sweep / "SAM")
    middle, left = ([one.test_1d[i] for one in found] for i in (1, 0))
    assert middle[0] == pytest.approx(middle[1], rel=1e-6)  # 240 images are all that there are
    assert left[0] != pytest.approx(left[1], rel=1e-3)


BAD = {
    "no folder": (["hessian", "{}/none"], "none does not exist: give the output_dir of a run or of a sweep"),
    "no run": (["landscape", "{}/SAM/empty"], "no run in"),
    "no model": (["hessian", "{}/SPL_Loss"], "do not give --skip_model_save to train"),
    "no such model": (["landscape", "{}", "--checkpoint", "model_step1.pkl"], "there are model.pkl, model_step0.pkl"),
    "no model's name": (["hessian", "{}", "--checkpoint", "results.jsonl"], "--checkpoint is model.pkl or model_step"),
    "filters": (["hessian", "{}", "--trial_seed", "1"], "none of the 3 runs is as the flags ask; they have"),
    "samples": (["hessian", "{}", "--samples", "500"], "images of each environment: 0 240, 15 240, 30 240, 45 240"),
    "samples 0": (["landscape", "{}", "--samples", "0"], "--samples must be at least 1, not 0"),
    "batch_size": (["hessian", "{}", "--batch_size", "-1"], "--batch_size must be at least 1, not -1"),
    "seed": (["hessian", "{}", "--seed", "-1"], "--seed must be at least 0, not -1"),
    "eigenvalues": (["hessian", "{}", "--eigenvalues", "0"], "--eigenvalues must be at least 1, not 0"),
    "too many": (["hessian", "{}", "--eigenvalues", "99999"], "--eigenvalues must be at least 1 and below the"),
    "vectors": (["hessian", "{}", "--max_vectors", "1"], "--max_vectors must be at least 2, not 1"),
    "directions": (["hessian", "{}", "--directions", "1"], "--directions must be at least 2, not 1"),
    "tolerance": (["hessian", "{}", "--tolerance", "0"], "--tolerance must be in (0, inf), not 0.0"),
    "nan": (["hessian", "{}", "--trace_tolerance", "nan"], "--trace_tolerance must be in (0, inf), not nan"),
    "rho": (["hessian", "{}", "--rho", "-0.1"], "--rho must be in (0, inf), not -0.1"),
    "even": (["landscape", "{}", "--points", "4"], "--points must be odd, so that the model itself is one of them"),
    "few": (["landscape", "{}", "--plane_points", "1"], "--plane_points must be at least 3, not 1"),
    "radius": (["landscape", "{}", "--radius", "inf"], "--radius must be in (0, inf), not inf"),
    "figure": (["landscape", "{}", "--output", "x.gif"], "x.gif names no figure format: end it in .svg, .png, .pdf"),
    "flatness figure": (["hessian", "{}", "--output", "x.gif"], "x.gif names no figure format"),
    "no disk": (["landscape", "{}/SAM", *POINTS, "--output", "{}/none/x.svg"], "there is no folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(trained: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    flags, message = BAD[case]
    (trained / "SAM" / "empty").mkdir(exist_ok=True)
    assert main(["analyze", *(flag.format(trained) for flag in flags)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("domainbed-adm: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(trained.rglob("hessian*"))


def test_a_damaged_model_is_one_line_before_any_is_measured(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "SAM" / "model.pkl").write_bytes(b"no model")
    for command in ("hessian", "landscape"):
        assert main(["analyze", command, str(sweep / "ERM"), str(sweep / "SAM")]) == 2
        error = capsys.readouterr().err
        assert f"{sweep}/SAM/model.pkl is no file that domainbed-adm saved" in error
        assert error.count("\n") == 1


def test_a_model_of_another_shape_than_the_data_is_one_line(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep / "SAM" / "results.jsonl"
    path.write_text(path.read_text().replace('"samples": [300, ', '"samples": [301, '))
    assert main(["analyze", "hessian", str(sweep / "SAM")]) == 2
    error = capsys.readouterr().err
    assert f"{sweep}/SAM was trained on other data: images of each environment [301, 300, " in error
    assert error.count("\n") == 1


def test_runs_of_different_networks_are_not_compared(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(sweep, "FSAM", hparams='{"cnn_width": 16, "batch_size": 4}')
    capsys.readouterr()
    assert main(["analyze", "landscape", str(sweep), *POINTS, "--algorithms", "SAM", "FSAM"]) == 2
    error = capsys.readouterr().err
    assert f"the models of {sweep}/SAM and {sweep}/FSAM have parameters of different shapes" in error
    assert error.count("\n") == 1
    assert not list(sweep.rglob("landscape*"))


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom domainbed_adm.scripts.analyze import main\n"
        "try:\n    main(['hessian', '--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
