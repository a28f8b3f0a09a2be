"""A step that goes wrong stops the run with one line, and leaves the last good checkpoint."""

import json
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_adm import hparams_registry
from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.cli import main
from domainbed_adm.hparams_registry import Number
from domainbed_adm.method.grid import METHODS
from domainbed_adm.training.model_file import load_tensors


def train(folder, *flags, **hparams):
    given = json.dumps({"cnn_width": 8, "batch_size": 3} | hparams)
    common = ["--dataset", "Debug28", "--algorithm", "SAM_SSPL_ADM", "--output_dir", str(folder), "--hparams", given]
    return main(["train", *common, "--steps", "6", "--checkpoint_freq", "2", *flags])


def spoil(monkeypatch, at, action):
    """Make the algorithm's update do something at its ``at``-th call."""
    cls = get_algorithm_class("SAM_SSPL_ADM")
    update, calls = cls.update, []

    def spoilt(self, minibatches, unlabeled=None):
        calls.append(1)
        if len(calls) == at:
            return action(self, lambda: update(self, minibatches, unlabeled))
        return update(self, minibatches, unlabeled)

    monkeypatch.setattr(cls, "update", spoilt, raising=False)


def poisoned(algorithm, update):
    with torch.no_grad():
        algorithm.classifier.bias[0] = float("nan")
    return update()


def test_a_number_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, 5, poisoned)
    assert train(tmp_path) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "SAM_SSPL_ADM on Debug28, step 4: not finite: loss nan" in error
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert (report["step"], report["algorithm"], report["hparams"]["batch_size"]) == (4, "SAM_SSPL_ADM", 3)
    checkpoint = load_tensors(tmp_path / "checkpoint.pkl", ["position", "algorithm"])
    assert checkpoint["position"]["next_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["algorithm"].values())
    assert not (tmp_path / "done").exists()
    assert not (tmp_path / "model.pkl").exists()


def test_a_loss_of_another_algorithm_is_checked_too(tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, 2, lambda algorithm, update: {**update(), "loss": float("inf")})
    assert train(tmp_path) == 3
    assert "step 1: not finite: loss inf" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_too_little_memory_says_what_to_lower(tmp_path, monkeypatch, capsys, error):
    def fail(algorithm, update):
        raise error

    spoil(monkeypatch, 4, fail)
    assert train(tmp_path) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "out of memory: SAM_SSPL_ADM on Debug28, step 3, 2 domains x batch_size 3, inputs (3, 28, 28)" in told
    assert "lower the hparam batch_size" in told
    monkeypatch.undo()
    assert train(tmp_path) == 0


def test_too_little_memory_in_an_evaluation_is_one_line_too(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(get_algorithm_class("SAM_SSPL_ADM"), "predict", fail)
    assert train(tmp_path) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "out of memory: SAM_SSPL_ADM on Debug28, step 0" in told


def test_a_batch_too_small_for_batch_norm_is_one_line(tmp_path, monkeypatch, capsys):
    def normalise(algorithm, update):
        torch.nn.BatchNorm1d(2)(torch.ones(1, 2))

    spoil(monkeypatch, 1, normalise)
    assert train(tmp_path, batch_size=1) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "SAM_SSPL_ADM on Debug28, step 0, 2 domains x batch_size 1" in told
    assert "BatchNorm needs more than one value of each channel in a batch: raise the hparam batch_size" in told


def test_another_error_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(algorithm, update):
        raise RuntimeError("shapes do not match")

    spoil(monkeypatch, 2, fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tmp_path)
    assert "Traceback" in (tmp_path / "err.txt").read_text()


NUMBERS = {
    name: spec.valid
    for name, spec in hparams_registry.every_hparam().items()
    if isinstance(spec.valid, Number) and not spec.valid.integer
}


def extremes(valid):
    """The ends of a range, and what is next to an open one; of floats where there is no end."""
    low, high = max(valid.low, -sys.float_info.max), min(valid.high, sys.float_info.max)
    found = [low, math.nextafter(low, high), 1e-45, 1e38, math.nextafter(high, low), high]
    return [value for value in found if value in valid]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_in_its_range_trains_or_is_said_to_diverge(tmp_path, capsys, name):
    """Also where single precision has no such number."""
    owners = [method for method in METHODS if name in hparams_registry.default_hparams(method, "Debug28")]
    for i, value in enumerate(extremes(NUMBERS[name])):
        weighting = "memory" if i % 2 or name in ("adm_refresh", "difficulty_smoothing") else "both"
        given = {"spl_mode": "threshold", "weighting": weighting, name: value}
        code = train(tmp_path / str(i), "--algorithm", owners[-1], "--steps", "2", "--skip_model_save", **given)
        assert code in (0, 3), (name, value)
        assert code == 0 or (tmp_path / str(i) / "diverged.json").exists()
    assert "Traceback" not in capsys.readouterr().err


EXTREMES = {name: extremes(valid) for name, valid in NUMBERS.items()} | {
    "curriculum_scope": ["batch", "domain"],
    "spl_mode": ["quantile", "threshold"],
    "adm_estimator": ["exact", "linear"],
    "weighting": ["both", "memory"],
}


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in EXTREMES.items()}))
def test_any_numbers_together_train_or_are_said_to_diverge(tmp_path_factory, given):
    folder = tmp_path_factory.mktemp("run")
    for algorithm in ("FSAM_SPL_ADM", "SAGM_SSPL_ADM"):
        code = train(folder, "--algorithm", algorithm, "--steps", "2", "--skip_model_save", "--restart", **given)
        refreshed, smoothed = given.get("adm_refresh", 1) != 1, given.get("difficulty_smoothing", 0) != 0
        forgets = given.get("weighting") != "memory"
        if (forgets and (refreshed or smoothed)) or (refreshed and given.get("adm_estimator") == "linear"):
            assert code == 2
            continue
        assert code == (3 if (folder / "diverged.json").exists() else 0)


def test_a_network_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: torch.empty(2**55))
    assert train(tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert told.startswith("domainbed-adm: error: out of memory: SAM_SSPL_ADM on Debug28, 2 domains x batch_size 3, ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("lr", 1e38), ("weight_decay", 1e300), ("spl_threshold", 1e300)])
def test_a_number_that_torch_cannot_use_is_refused(tmp_path, capsys, name, value):
    assert train(tmp_path / "run", "--algorithm", "SPL_Loss", **{name: value}) == 2
    assert f"hparam {name} must be a number in" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
