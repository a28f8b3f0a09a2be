"""Runs in bf16 and fp16: what is computed in which type, exact resume, steps that overflow, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domainbed_adm.algorithms import ERM
from domainbed_adm.run_files import CHECKPOINT
from domainbed_adm.training import precision as module
from domainbed_adm.training.difficulty_trace import load_trace
from domainbed_adm.training.model_file import load_tensors
from tests.training.test_resume import assert_same, outcome, train, train_killed

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: (method, weighting): the base, each flatness rule, each weighting.
CASES = [("ERM", "both"), ("FSAM_SPL_ADM", "memory"), ("SAGM_SSPL_GDM", "both"), ("SAM_SSPL_ADM", "descent")]


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scaler that overflows at first and grows soon, so that five steps show all it does."""
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**28, backoff_factor=2.0**-14, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


@pytest.mark.usefixtures("overflowing")
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("name", "weighting"), CASES)
def test_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, name: str, weighting: str
) -> None:
    flags = ["--precision", precision, "--checkpoint_every", "1"]
    options = {"weighting": weighting, "resnet_dropout": 0.1}
    assert train(tmp_path / "whole", name, *flags, **options) == 0
    for killed_at in (2, 4):
        folder = tmp_path / str(killed_at)
        train_killed(monkeypatch, killed_at, folder, name, *flags, **options)
        scaler = load_tensors(folder / CHECKPOINT, ["scaler"])["scaler"]
        assert (scaler is None) is (precision == "bf16")
        assert train(folder, name, *flags, **options) == 0
        assert_same(tmp_path / "whole", folder)


@pytest.mark.parametrize("precision", DTYPES)
def test_passes_are_in_the_precision_and_all_else_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    logits, original = set(), ERM.predict

    def predict(self: ERM, x: Tensor) -> Tensor:
        found = original(self, x)
        logits.add((found.dtype, torch.is_inference(found)))
        assert {param.dtype for param in self.parameters()} == {x.dtype} == {torch.float32}
        assert {v.dtype for state in self.optimizer.state.values() for v in state.values()} == {torch.float32}
        return found

    monkeypatch.setattr(ERM, "predict", predict)
    assert train(tmp_path / "run", "SAM_SSPL_ADM", "--precision", precision) == 0
    assert logits == {(DTYPES[precision], True)}
    records, weights = outcome(tmp_path / "run")
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    assert train(tmp_path / "fp32", "SAM_SSPL_ADM") == 0
    exact, weights_exact = outcome(tmp_path / "fp32")
    for ours, theirs in zip(records, exact, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)
    assert any(not torch.equal(value, weights_exact[key]) for key, value in weights.items())
    assert json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[0])["args"]["precision"] == precision


@pytest.mark.usefixtures("overflowing")
def test_a_step_that_overflows_counts_in_no_mean(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "SAM_SSPL_ADM", "--precision", "fp16") == 0
    first, *later = outcome(tmp_path / "run")[0]
    assert first["skipped_fraction"] == 1
    assert first["gradient_norm"] is None
    assert first["loss"] > 0
    assert later[-1]["gradient_norm"] > 0
    assert later[-1]["skipped_fraction"] < 1
    assert train(tmp_path / "fp32", "SAM_SSPL_ADM") == 0
    assert all("skipped_fraction" not in record for record in outcome(tmp_path / "fp32")[0])


@pytest.mark.parametrize("precision", DTYPES)
def test_the_trace_is_in_the_precision_and_changes_nothing(tmp_path: Path, precision: str) -> None:
    flags = ["--precision", precision]
    assert train(tmp_path / "plain", "SAM_SSPL_ADM", *flags) == 0
    assert train(tmp_path / "traced", "SAM_SSPL_ADM", *flags, "--trace_difficulty", "8") == 0
    assert_same(tmp_path / "plain", tmp_path / "traced")
    assert train(tmp_path / "fp32", "SAM_SSPL_ADM", "--trace_difficulty", "8") == 0
    ours, exact = (load_trace(tmp_path / name / "difficulty.npz").scores for name in ("traced", "fp32"))
    for name in ("Loss", "GDM"):
        assert ours[name][0] == pytest.approx(exact[name][0], rel=0.1)
        assert (ours[name] != exact[name]).any()


def _trains_by_itself(self: Any, minibatches: Any, unlabeled: Any = None) -> dict[str, float]:
    return {"loss": 1.0}


def test_fp16_is_refused_where_losses_are_not_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "--precision fp16 needs losses that are scaled, and ERM does not train by self.step"
    monkeypatch.setattr(ERM, "update", _trains_by_itself)
    assert train(tmp_path / "own", "ERM", "--precision", "fp16") == 2
    assert said in capsys.readouterr().err
    assert train(tmp_path / "bf16", "ERM", "--precision", "bf16") == 0
    monkeypatch.setattr(ERM, "step", property(lambda self: None, lambda self, step: None), raising=False)
    capsys.readouterr()
    assert train(tmp_path / "none", "ERM", "--precision", "fp16") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_precision_that_the_device_lacks_is_refused_with_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_computes", lambda device, precision: precision == "bf16")
    assert train(tmp_path / "run", "ERM", "--precision", "fp16") == 2
    assert (
        capsys.readouterr().err
        == "domainbed-adm: error: --precision fp16: this CPU computes in fp32, bf16 alone: give bf16\n"
    )
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "run", "ERM", "--precision", "bf16") == 0


def test_another_precision_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "ERM") == 0
    capsys.readouterr()
    assert train(tmp_path, "ERM", "--precision", "bf16") == 2
    assert "holds another run: --precision (fp32 there, bf16 here)" in capsys.readouterr().err
