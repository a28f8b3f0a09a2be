"""A step that goes wrong stops the run with one line, and leaves the last good checkpoint."""

import json
import math
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_adm import hparams_registry
from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.cli import main
from domainbed_adm.errors import LoadingError
from domainbed_adm.hparams_registry import Number
from domainbed_adm.method.cards import METHODS
from domainbed_adm.system import machine
from domainbed_adm.training import capacity, failures, setup
from domainbed_adm.training.model_file import load_plain


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
    checkpoint = load_plain(tmp_path / "checkpoint.pkl", ["position", "algorithm"])
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
        given = {"spl_mode": "threshold"} | {"weighting": ("both", "memory")[i % 2], name: value}
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
        assert code == (3 if (folder / "diverged.json").exists() else 0)


@pytest.mark.parametrize("value", [2**16, 10**9, 10**18, 10**400])
@pytest.mark.parametrize("name", ["cnn_width", "batch_size"])
def test_sizes_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, name, value):
    monkeypatch.setattr(machine, "memory", lambda: 2**32)
    assert train(tmp_path / "run", **{name: value}) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("needs " in told and "GiB of memory or more, 4 are there: lower the hparam batch_size" in told) or (
        value > 2**16 and f"hparam {name} must be" in told
    )
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(capacity, "least_memory", lambda *_: 0)
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: torch.empty(2**55))
    assert train(tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert told.startswith("domainbed-adm: error: out of memory: SAM_SSPL_ADM on Debug28, 2 domains x batch_size 3, ")
    assert told.count("\n") == 1


def test_what_a_step_needs_at_the_least():
    """Of a network that can be counted by hand: two linear layers and the ReLU between."""

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = torch.nn.Linear(4, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3)
            self.network = torch.nn.Sequential(*layers)
            self.predict = self.network

    params, inputs, hidden = 4 * 10 + 10 + 10 * 3 + 3, 4, 10
    assert capacity.least_memory(Small, (7, 4)) == 4 * (4 * params + 7 * (inputs + hidden))
    assert capacity.least_memory(Small, (7, 4), peak=1.5) == 4 * (4 * params + 1.5 * 7 * (inputs + hidden))
    assert capacity.least_memory(torch.nn.Linear, (7, 4)) == 0


def test_the_check_draws_from_no_generator():
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1:]

    def make():
        torch.randn(3), random.random(), np.random.rand()  # an extension's own way to begin
        return torch.nn.Linear(2, 2)

    before = states()
    capacity.check_fits(make, (1, 2), False, "a run")
    for old, new in zip(before, states(), strict=True):
        np.testing.assert_equal(new, old)


@pytest.mark.parametrize(
    ("flags", "differentiates"),
    [
        (("SPL_GDM", "both"), True),
        (("SPL_ADM", "both"), True),
        (("SPL_ADM", "memory"), False),
        (("SPL_Loss", "both"), False),
    ],
)
def test_inputs_that_are_not_differentiated_apart_take_no_room(tmp_path, monkeypatch, flags, differentiates):
    seen = []
    monkeypatch.setattr(setup, "check_fits", lambda make, batch, by_inputs, what: seen.append(by_inputs))
    algorithm, weighting = flags
    assert train(tmp_path, "--algorithm", algorithm, "--steps", "1", "--skip_model_save", weighting=weighting) == 0
    assert seen == [differentiates]


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid(s) 5215) exited unexpectedly",
        "DataLoader worker (pid 5215) is killed by signal: Killed. ",
        "DataLoader worker (pid 5215) is killed by signal: Bus error. ... out of shared memory.",
        "unable to write to file </torch_5215_1>: No space left on device (28)",
    ],
)
def test_a_loading_process_that_was_killed_is_told_and_may_be_tried_again(tmp_path, said):
    run = SimpleNamespace(in_words=lambda moment: f"SAM on PACS{moment}")
    advice = (
        "^a process that loads data was killed, perhaps for want of memory: SAM on PACS, step 3: try --workers 0, or"
    )
    with pytest.raises(LoadingError, match=advice), failures.explained(run, 3, tmp_path):
        raise RuntimeError(said)


@pytest.mark.parametrize(("name", "value"), [("lr", 1e38), ("weight_decay", 1e300), ("spl_threshold", 1e300)])
def test_a_number_that_torch_cannot_use_is_refused(tmp_path, capsys, name, value):
    assert train(tmp_path / "run", "--algorithm", "SPL_Loss", **{name: value}) == 2
    assert f"hparam {name} must be a number in" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
