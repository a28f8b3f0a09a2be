"""``python -m benchmarks.flatness``: what it pairs, refuses and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.flatness import main
from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, save_flatness
from domainbed_adm.cli import run

DOCUMENT = Path(__file__).parents[2] / "benchmarks" / "flatness.md"


def domain(role: str, value: float, **more: Any) -> DomainFlatness:
    values = {"loss": value, "accuracy": 0.5, "eigenvalues": [1000 * value], "converged": True, "trace": value}
    values |= {"trace_sem": 0.1, "trace_vectors": 10, "sharpness": value, "random_rise": value, "random_rise_sem": 0.1}
    return DomainFlatness(name=role, role=role, n=8, **values | more)


def flat(root: Path, algorithm: str, value: float, pooled: dict[str, Any] | None = None, **more: Any) -> None:
    how = {"model": "model.pkl", "algorithm": algorithm, "dataset": "Mine", "test_envs": [0], "trial_seed": 0}
    how |= {"hparams_seed": 0, "samples": None, "batch_size": 8, "seed": 0, "dtype": "float32", "device": "cpu"}
    how |= {"mode": "as trained", "versions": {}, "rho": 0.05, "tolerance": 0.1, "trace_tolerance": 0.1}
    how |= {"domains": [domain("pooled", value, **pooled or {}), domain("test", 2 * value)]}
    folder = root / f"{len(list(root.iterdir()))}"
    folder.mkdir()
    save_flatness(Flatness(**how | more), folder)


def lines(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert run(main, [str(root), "ERM", "SAM"]) == 0
    return capsys.readouterr().out.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_pairs_have_the_same_test_environments_trial_and_hparams_seed(tmp_path: Path, capsys) -> None:
    flat(tmp_path, "ERM", 1.0)
    flat(tmp_path, "SAM", 0.5)
    flat(tmp_path, "ERM", 8.0, trial_seed=1)
    flat(tmp_path, "ERM", 16.0, test_envs=[1])
    flat(tmp_path, "SAM", 32.0, hparams_seed=1)
    found = lines(tmp_path, capsys)
    assert found[0] == "1 pair; up to 256 images of each domain, float32, rho 0.05, as trained"
    assert cells(found[4]) == ["loss", "1 ± 0", "0.5 ± 0", "-0.5", "-", "1 of 1", "-"]
    flat(tmp_path, "ERM", 3.0, hparams_seed=1)
    found = lines(tmp_path, capsys)
    assert found[0].startswith("2 pairs; ")
    assert cells(found[4])[:4] == ["loss", "2 ± 0.71", "16.2 ± 11", "+14.2"]


def test_tables_are_whole_and_those_of_the_document(tmp_path: Path, capsys) -> None:
    flat(tmp_path, "ERM", 1.0)
    flat(tmp_path, "SAM", 0.5)
    found = [line for line in lines(tmp_path, capsys) if line.startswith("|")]
    assert {len(cells(line)) for line in found} == {7}
    document = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = document.index(found[0])
    written = [line for line in document[start : start + len(found) + 1] if line.startswith("|")]
    assert [cells(line)[0] for line in written] == [cells(line)[0] for line in found]
    assert {len(cells(line)) for line in written} == {7}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"rho": 0.5}, "rho 0.05, 0.5"),
        ({"seed": 1}, "seed 0, 1"),
        ({"samples": 64}, "samples None, 64"),
        ({"batch_size": 16, "dtype": "float64"}, "batch_size 8, 16; dtype float32, float64"),
        ({"dataset": "Zoo"}, "dataset Mine, Zoo"),
    ],
)
def test_runs_measured_differently_are_refused(tmp_path: Path, capsys, other: dict[str, Any], told: str) -> None:
    flat(tmp_path, "ERM", 1.0)
    flat(tmp_path, "SAM", 0.5, **other)
    assert run(main, [str(tmp_path), "ERM", "SAM"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert f"the runs were not measured alike: {told}. " in error


def test_eigenvalues_that_did_not_converge_are_unknown(tmp_path: Path, capsys) -> None:
    for trial, left in enumerate(([3.0], [], [700.0])):
        flat(tmp_path, "ERM", 1.0 + trial, trial_seed=trial)
        flat(tmp_path, "SAM", 0.5, {"eigenvalues": left, "converged": trial == 0}, trial_seed=trial)
    found = lines(tmp_path, capsys)
    assert cells(found[6])[:3] == ["largest eigenvalue (2 of 3 pairs did not converge)", "1000 ± 0", "3 ± 0"]
    assert cells(found[6])[5] == "1 of 1"
    assert cells(found[4])[5] == "3 of 3"
    flat(tmp_path, "ERM", 1.0, {"eigenvalues": [], "converged": False}, trial_seed=0)
    assert cells(lines(tmp_path, capsys)[6]) == ["largest eigenvalue (3 of 3 pairs did not converge)", *"------"]


def test_without_a_pair_the_command_to_run_first_is_named(tmp_path: Path, capsys) -> None:
    flat(tmp_path, "ERM", 1.0)
    flat(tmp_path, "SAM", 1.0, trial_seed=1)
    assert run(main, [str(tmp_path), "ERM", "SAM"]) == 2
    assert "no pair of runs of ERM and SAM in" in capsys.readouterr().err
