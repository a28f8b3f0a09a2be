"""Compiled runs: nothing is compiled after the first step and evaluation, results agree, resume is exact."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from domainbed_adm import networks
from domainbed_adm.algorithms import ERM
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.method.grid import METHODS
from domainbed_adm.training import compilation as module
from domainbed_adm.training import loop
from domainbed_adm.training.batches import EVALUATION_BATCH
from tests.training.test_resume import assert_same, outcome, train, train_killed

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
#: Every method, and weighting "memory" of those that have a flatness rule and rank by each difficulty.
EVERY = [(name, "both") for name in METHODS] + [
    (f"{rule}_SSPL_{difficulty}", "memory") for rule in ("SAM", "SAGM", "FSAM") for difficulty in ("Loss", "GDM", "ADM")
]
#: What is compiled does not depend on the curriculum: SPL by one difficulty, "memory" with one rule, stand for it.
QUICK = {
    *((name, "both") for name, method in METHODS.items() if "_SPL_" not in f"_{name}" or method.difficulty == "ADM"),
    *((name, weighting) for name, weighting in EVERY if weighting == "memory" and name.startswith("FSAM")),
}
CASES = [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY]


def _noisy_batch_norm(channels: int, width: int) -> tuple[nn.Module, int]:
    layers = [nn.Conv2d(channels, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), width


@pytest.fixture(autouse=True)
def _batch_norm_and_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with both, for 28 px; evaluations with batches that are full and such as are not."""
    monkeypatch.setattr(networks, "small_cnn", _noisy_batch_norm)
    monkeypatch.setitem(EVALUATION_BATCH, "cpu", 3)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the compiler was asked for, by a backend that runs torch's own kernels; the check at the start is left out.

    The list is to be cleared after it.
    """
    asked: list[str] = []
    inner = torch._dynamo.lookup_backend("aot_eager")

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        asked.append(str(graph.graph))
        return inner(graph, inputs)

    monkeypatch.setattr(module, "_BACKEND", backend)
    return asked


def counted(monkeypatch: pytest.MonkeyPatch, compilations: list[str], *arguments: Any, **hparams: Any) -> list[int]:
    """Train; how many compilations there were before each step, and in the end."""
    counts: list[int] = []
    original = loop._step

    def step(*given: Any) -> dict[str, float]:
        counts.append(len(compilations))
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", step)
        assert train(*arguments, **hparams) == 0
    return [count - counts[0] for count in (*counts, len(compilations))]


def assert_close(a: Path, b: Path, rel: float) -> None:
    (ours, _), (theirs, _) = outcome(a), outcome(b)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in ("loss", "gradient_norm", "difficulty_mean"):
            assert mine.get(name) == (other.get(name) and pytest.approx(other[name], rel=rel))
        for name in ("env0_in_acc", "env1_out_acc"):
            assert mine[name] == pytest.approx(other[name], abs=0.1)


@pytest.mark.parametrize(("name", "weighting"), CASES)
def test_the_first_step_and_evaluation_compile_all_and_results_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str], name: str, weighting: str
) -> None:
    options = {"weighting": weighting}
    first, *later = counted(monkeypatch, compilations, tmp_path / "compiled", name, "--compile", **options)
    method = METHODS[name]
    # the clean pass and evaluation; the second pass; scoring at other inputs
    passes = 2 + ("SAM" in name or "SAGM" in name) + ("ADM" in name)
    assert first == 0
    assert later == [passes] * 5
    assert method.name == name
    assert train(tmp_path / "plain", name, **options) == 0
    assert_close(tmp_path / "compiled", tmp_path / "plain", rel=1e-4)


def test_an_estimate_is_checked_by_passes_that_the_first_step_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    monkeypatch.setattr("domainbed_adm.method.step.CORRELATION_EVERY", 2)
    options = {"adm_estimator": "linear"}
    _, *later = counted(monkeypatch, compilations, tmp_path, "SAM_SSPL_ADM", "--compile", **options)
    assert later == [4] * 5


def test_a_trace_compiles_nothing_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    counts = [
        counted(monkeypatch, compilations, tmp_path / name, "SAM_SSPL_ADM", "--compile", *flags)
        for name, flags in {"plain": [], "traced": ["--trace_difficulty", "7"]}.items()
    ]
    assert counts[0] == counts[1]
    assert_same(tmp_path / "plain", tmp_path / "traced")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "weighting", "precision"),
    [("ERM", "both", "fp32"), ("SAM_SSPL_ADM", "both", "bf16"), ("FSAM_SPL_ADM", "memory", "fp32")],
)
def test_real_code_resumes_exactly_and_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weighting: str, precision: str
) -> None:
    flags, options = ["--precision", precision, "--checkpoint_every", "1"], {"weighting": weighting}
    assert train(tmp_path / "whole", name, "--compile", *flags, **options) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, "--compile", *flags, **options)
    assert train(tmp_path / "broken", name, "--compile", *flags, **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    assert train(tmp_path / "plain", name, *flags, **options) == 0
    assert_close(tmp_path / "whole", tmp_path / "plain", rel=2e-2 if precision == "bf16" else 1e-3)
    ours, theirs = (outcome(tmp_path / folder)[1] for folder in ("whole", "plain"))
    assert ours.keys() == theirs.keys()
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)  # it was compiled


@needs_compiler
def test_dropout_of_real_code_is_that_without_and_repeats_in_the_second_pass() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5))
    algorithm = nn.Module()
    algorithm.network = network
    x = torch.ones(64, requires_grad=True)
    state = torch.get_rng_state()
    plain = network(x)
    after = torch.get_rng_state()
    module.compile_network(algorithm)
    for gradients in (True, False):
        torch.set_rng_state(state)
        with torch.set_grad_enabled(gradients):
            assert torch.equal(network(x), plain)
        assert torch.equal(torch.get_rng_state(), after)


def test_without_a_compiler_the_run_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert train(tmp_path / "run", "ERM", "--compile") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("domainbed-adm: error: --compile: torch cannot compile for cpu here (")
    assert error.endswith("): install a C++ compiler (g++), or leave --compile out\n")
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_compiled_ends_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        if len(inputs) > 1:
            raise RuntimeError("no kernel for this")
        return graph.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(module, "_BACKEND", backend)
    assert train(tmp_path / "run", "ERM", "--compile") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--compile: torch cannot compile this network (" in error
    assert "no kernel for this" in error


@pytest.mark.usefixtures("compilations")
def test_a_batch_too_small_for_batch_norm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_value_each(channels: int, width: int) -> tuple[nn.Module, int]:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels)), channels

    monkeypatch.setattr(networks, "small_cnn", one_value_each)
    held_out = map(str, range(1, len(get_card("Debug28").environments or ())))
    assert train(tmp_path / "run", "ERM", "--compile", "--test_envs", *held_out, batch_size=1) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "BatchNorm needs more than one value of each channel in a batch: raise the hparam batch_size" in error


@pytest.mark.usefixtures("compilations")
def test_an_algorithm_without_a_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = ERM.__init__

    def without(self: ERM, *args: Any) -> None:
        original(self, *args)
        del self.network

    monkeypatch.setattr(ERM, "__init__", without)
    assert train(tmp_path / "run", "ERM", "--compile") == 2
    assert "--compile compiles self.network, which ERM does not have" in capsys.readouterr().err


def test_a_compiled_run_is_another_run(
    tmp_path: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "ERM") == 0
    assert train(tmp_path, "ERM", "--compile") == 2
    assert "holds another run: --compile (False there, True here)" in capsys.readouterr().err
