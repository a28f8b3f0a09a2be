"""``python -m benchmarks.gpu --small``: every path on the CPU, and the table that grows part by part."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import ALGORITHMS, FULL, SMALL, Benchmark, main, store
from domainbed_adm.errors import UserError
from domainbed_adm.training import compilation

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@no_gpu
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(UserError, match="no GPU here"):
        main(["--output_dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_parts_add_to_one_table(tmp_path):
    common = ["--small", "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    assert main([*common, "--part", "steps-resnet18", "evaluation"]) == 0
    assert main([*common, "--part", "run"]) == 0
    (path,) = (tmp_path / "out").glob("small-*.json")
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == ["steps-resnet18", "evaluation", "run"]
    steps = [(row["precision"], row["algorithm"]) for row in parts["steps-resnet18"]]
    assert steps == [(precision, algorithm) for precision in ("fp32", "bf16") for algorithm in ALGORITHMS]
    assert min(float(row["step_ms"]) for row in parts["steps-resnet18"]) > 0
    assert [row["precision"] for row in parts["evaluation"]] == ["fp32", "bf16"]
    (run,) = parts["run"]
    assert run["steps"] == str(SMALL.steps)
    assert min(float(run[name]) for name in ("seconds", "training_of_floor", "evaluation_of_floor")) > 0
    lines = path.with_suffix(".md").read_text().splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## steps-resnet18", "## evaluation", "## run"]
    assert sum(line.startswith("| resnet18 ") for line in lines) == 6 + 2 + 1
    assert not list((tmp_path / "data").glob("run*"))


@pytest.mark.slow
def test_compiled_networks_are_measured_too(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "_BACKEND", "eager")
    rows = list(Benchmark(replace(SMALL, compiled=(True,)), tmp_path, tmp_path).steps("resnet18"))
    assert [row["compiled"] for row in rows] == ["yes"] * 6


def test_a_table_of_another_machine_is_begun_anew(tmp_path):
    common = ["--small", "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path), "--part", "evaluation"]
    assert main(common) == 0
    (path,) = tmp_path.glob("small-*.json")
    tables = json.loads(path.read_text())
    store(tables | {"facts": tables["facts"] | {"torch": "0.1"}, "parts": {"run": tables["parts"]["evaluation"]}}, path)
    assert main(common) == 0
    assert list(json.loads(path.read_text())["parts"]) == ["evaluation"]


def test_the_full_size_is_the_one_stated():
    assert sum(FULL.images) == 9991
    assert sum(step % FULL.checkpoint_freq == 0 or step == FULL.steps - 1 for step in range(FULL.steps)) == 18
