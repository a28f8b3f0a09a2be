"""A step in fp16 with a gradient scaler: rounding, small gradients, and overflow in each of its passes."""

import contextlib

import pytest
import torch
from torch import nn

from domainbed_adm.errors import NonFiniteError
from domainbed_adm.method.curriculum import SPL
from domainbed_adm.method.difficulty import GDM
from domainbed_adm.method.step import TrainingStep
from tests.method.failing import equal, fail_in, state_of
from tests.test_invariants import EVERY, make, run
from tests.toys import batch, network, parameters_of

each_method = pytest.mark.parametrize(("name", "weighting"), EVERY)
IDENTITIES = ([5, 4, 3], torch.arange(12))


def scaled_step(name, weighting="both", init_scale=2.0**10):
    step = make(name, weighting, network().float())
    step.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=10**6)
    return step


@each_method
def test_a_scaler_changes_no_more_than_rounding(name, weighting):
    """In fp32 and float64 scaling by a power of two is exact but for numbers that vanish."""
    plain, scaled = make(name, weighting, network()), make(name, weighting, network())
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(3):
        x, y = batch(seed=t)
        assert scaled(x, y, *IDENTITIES) == pytest.approx(plain(x, y, *IDENTITIES), rel=1e-9)
    torch.testing.assert_close(parameters_of(scaled.model), parameters_of(plain.model), rtol=1e-9, atol=1e-10)
    assert "skipped_steps" not in scaled.state


@each_method
def test_fp16_has_the_direction_of_fp32(name, weighting):
    ends = []
    for enabled in (False, True):
        step = scaled_step(name, weighting)
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            run(step, 1)
        ends.append(torch.cat([p.grad.flatten() for p in step.model.parameters()]))
    assert torch.cosine_similarity(*ends, dim=0) > 0.99
    assert 0.9 < ends[1].norm() / ends[0].norm() < 1.1


def test_small_input_gradients_survive_fp16():
    """fp16 ends at 6e-8: unscaled, input gradients of that size are 0 or coarse."""
    scores = []
    for enabled, init_scale in ((False, 1.0), (True, 1.0), (True, 2.0**14)):
        step = scaled_step("SSPL_GDM", init_scale=init_scale)
        with torch.no_grad():
            for p in step.model.parameters():
                p.mul_(2e-4)
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            scores.append(run(step, 1)["difficulty_mean"])
    exact, unscaled, scaled = scores
    assert abs(scaled / exact - 1) < 0.01
    assert abs(unscaled / exact - 1) > 0.1


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize(("name", "weighting"), [("SAM", "both"), ("SAGM", "both"), ("FSAM_SSPL_GDM", "memory")])
def test_on_overflow_the_step_is_skipped_and_counted(name, weighting, which, fused):
    step = scaled_step(name, weighting)
    step.optimizer = torch.optim.Adam(step.model.parameters(), lr=0.02, fused=fused)
    run(step, 1)
    before = state_of(step)
    hook = fail_in(step, which, float("inf"))
    run(step, 1)
    hook.remove()
    after = state_of(step)
    assert after["step"].pop("skipped_steps") == 1
    assert equal(after, before)
    assert step.state.update_count == 2
    assert step.scaler.get_scale() == 2.0**9
    run(step, 1)
    assert step.state["skipped_steps"] == 1
    assert not equal(state_of(step)["model"], before["model"])


def test_a_loss_that_is_not_finite_stops_under_a_scaler_too():
    step = scaled_step("SAM")
    x, y = batch(dtype=torch.float32)
    x[0] = float("nan")
    with pytest.raises(NonFiniteError, match="loss nan"):
        step(x, y)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_first_step_that_failed_leaves_no_disorder_in_a_fused_optimizer(scaled):
    """torch's fused SGD makes its momentum before it looks whether it may step."""
    ends = []
    for fails in (True, False):
        model = network().float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
        step = TrainingStep(model, optimizer, scaler=torch.amp.GradScaler("cpu") if scaled else None)
        if fails:
            hook = fail_in(step, 1, float("inf"))
            with contextlib.nullcontext() if scaled else pytest.raises(NonFiniteError):
                run(step, 1)
            hook.remove()
            assert not step.optimizer.state
        run(step, 2)
        ends.append(parameters_of(model))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


def test_scores_that_overflow_skip_the_step_until_the_scale_is_small_enough():
    """SPL keeps no sample where a score is NaN, so that the weighted loss is 0 / 0; the clean one is finite."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(14)
    step = TrainingStep(
        model,
        torch.optim.SGD(model.parameters(), lr=1e-4),
        None,
        SPL(),
        GDM(),
        total_steps=2,
        scaler=torch.amp.GradScaler("cpu"),
    )
    step.state.update_count = 1
    before = parameters_of(model)
    for t in range(20):
        with torch.autocast("cpu", torch.float16):
            step(*batch(seed=t % 5, dtype=torch.float32))
    assert 0 < step.state["skipped_steps"] < 15
    assert not torch.equal(parameters_of(model), before)
