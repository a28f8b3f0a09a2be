"""What must hold for every method and weighting: no side effects, exact restoring, zero radius, weights one, resume."""

import copy

import pytest
import torch

from domainbed_adm.algorithms import training_step
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.state import StepState
from tests.toys import batch, buffers_of, network, parameters_of

STEPS = 6
EVERY = [(name, weighting) for name, m in METHODS.items() for weighting in (WEIGHTINGS if m.curriculum else ("both",))]
each_method = pytest.mark.parametrize(("name", "weighting"), EVERY)


def make(name, weighting="both", model=None, **given):
    model = network(batch_norm=True, dropout=0.3) if model is None else model
    hparams = default_hparams(name, "Debug28") | {"weighting": weighting, "total_steps": STEPS} | given
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return training_step(METHODS[name], model, optimizer, hparams, StepState())


def run(step, steps, start=0):
    for t in range(start, start + steps):
        dtype = next(step.model.parameters()).dtype
        x, y = batch(seed=t % 3, dtype=dtype)
        figures = step(x, y, [5, 4, 3], torch.arange(12) + t % 3)
    return figures


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@each_method
def test_batch_norm_moves_once_a_step(name, weighting):
    """Its statistics after a step are those of one clean forward pass at the parameters before it."""
    step = make(name, weighting)
    for t in range(3):
        clean = copy.deepcopy(step.model)
        with torch.random.fork_rng(devices=[]):
            clean(batch(seed=t % 3)[0])
        run(step, 1, start=t)
        assert same(buffers_of(step.model), buffers_of(clean))
        assert step.model[2].num_batches_tracked == t + 1
    assert all(module.training for module in step.model.modules())


@each_method
def test_frozen_batch_norm_stays_frozen(name, weighting):
    step = make(name, weighting)
    step.model[2].eval()
    before = buffers_of(step.model)
    run(step, 2)
    assert same(buffers_of(step.model), before)
    assert not step.model[2].training


@each_method
def test_random_state_moves_as_in_erm(name, weighting):
    """All passes share the clean pass's dropout masks, so the global random state goes on as with ERM."""
    ends = []
    for method, mode in (("ERM", "both"), (name, weighting)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            run(make(method, mode), 2)
            ends.append(torch.rand(3))
    assert torch.equal(*ends)


@each_method
def test_zero_radius_is_the_base(name, weighting):
    """With rho = 0 (and alpha_s = 0) a flatness method is its base, dropout, BatchNorm and all."""
    method = METHODS[name]
    base = name.removeprefix(f"{method.flatness}_") if method.curriculum else "ERM"
    if method.flatness is None:
        base = name
    ends = []
    # descent weights no pass of a method without a second one: its base there is "both"
    for chosen, mode in ((name, weighting), (base, "both" if weighting == "descent" else weighting)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            step = make(chosen, mode, rho=0.0, sagm_alpha=0.0, asam_rho=0.0)
            run(step, STEPS)
            ends.append(parameters_of(step.model))
    if method.flatness in ("SAGM", "GSAM") and weighting == "descent":
        assert not torch.equal(*ends)  # they mix an unweighted and a weighted gradient, which is no single objective's
    else:
        torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


@each_method
def test_equal_weights_are_the_flatness_method(name, weighting):
    """With all weights 1 a curriculum method equals its flatness method."""
    method = METHODS[name]
    ends = []
    for chosen, options in ((name, {"sspl_eta": 0.0, "spl_start": 1.0}), (method.flatness or "ERM", {})):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            step = make(chosen, weighting if method.curriculum else "both", **options)
            run(step, STEPS)
            ends.append(parameters_of(step.model))
    assert torch.equal(*ends)


@each_method
def test_four_steps_are_two_saved_loaded_and_two(name, weighting):
    """Bit for bit, from the state dicts of the model, the optimizer and the step's state."""
    whole, first = make(name, weighting, network()), make(name, weighting, network())
    run(whole, 4)
    run(first, 2)
    second = make(name, weighting, network(seed=9))
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
    run(second, 2, start=2)
    assert torch.equal(parameters_of(whole.model), parameters_of(second.model))
    assert whole.state.state_dict().keys() == second.state.state_dict().keys()
    assert same(whole.state.state_dict(), second.state.state_dict())
    assert int(second.state.state_dict()["update_count"]) == 4


@each_method
def test_keeps_the_dtype(name, weighting):
    step = make(name, weighting, network().float())
    figures = run(step, 2)
    assert {p.dtype for p in step.model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in step.model.parameters()} == {torch.float32}
    assert all(isinstance(figure, float) for figure in figures.values())


@each_method
def test_runs_the_passes_it_says(name, weighting):
    """Forward passes: one clean, one for the FGSM copy, one for the second pass; none beyond."""
    step = make(name, weighting, network())
    calls = []
    step.model.register_forward_hook(lambda *_: calls.append(1))
    run(step, 1)
    method = METHODS[name]
    assert len(calls) == 1 + (method.difficulty == "ADM") + (method.flatness is not None)


@each_method
def test_a_failing_pass_leaves_the_parameters_as_they_were(name, weighting):
    step = make(name, weighting, network())
    before = parameters_of(step.model)
    calls = []

    def fail_at_last(*_):
        calls.append(1)
        if len(calls) == 1 + (METHODS[name].difficulty == "ADM") + (METHODS[name].flatness is not None):
            raise RuntimeError("out of memory")

    step.model.register_forward_hook(fail_at_last)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(step, 1)
    assert torch.equal(parameters_of(step.model), before)
    assert step.state.update_count == 0


@each_method
def test_a_parameter_without_gradient_is_left_alone(name, weighting):
    model = network()
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(3, dtype=torch.float64)))
    frozen = model[1].weight.requires_grad_(False)
    before = frozen.clone()
    run(make(name, weighting, model), 3)
    assert torch.equal(model.unused, torch.ones(3, dtype=torch.float64))
    assert model.unused.grad is None
    assert torch.equal(frozen, before)


@each_method
def test_leaves_the_batch_alone(name, weighting):
    x, y = batch()
    kept = x.clone()
    make(name, weighting)(x, y, [5, 4, 3], torch.arange(12))
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("difficulty", ["Loss", "GDM", "ADM"])
@pytest.mark.parametrize("flatness", ["", "SAM_"])
def test_every_weighting_scores_alike(flatness, difficulty, batch_norm):
    """The scores of one batch at one point are the same, however the passes are weighted: unit, batch size and all."""
    shown = []
    for weighting in WEIGHTINGS:
        step = make(f"{flatness}SSPL_{difficulty}", weighting, network(batch_norm=batch_norm), total_steps=100)
        if weighting == "memory":  # so that the weights differ, some of them 0
            step.state["difficulty_memory"] = torch.arange(12, dtype=torch.float64)
        x, y = batch()
        figures = step(x, y, [5, 4, 3], torch.arange(12))
        shown.append((figures["difficulty_mean"], figures["difficulty_std"]))
    assert shown[1] == pytest.approx(shown[0], rel=1e-6)
    assert shown[2] == pytest.approx(shown[0], rel=1e-6)


@each_method
@pytest.mark.parametrize("spoilt", ["inputs", "parameters", "overflow"])
def test_a_number_that_is_not_finite_stops_before_the_optimizer(name, weighting, spoilt):
    step = make(name, weighting, network())
    run(step, 1)
    x, y = batch()
    if spoilt == "inputs":
        x[3, 0, 1, 1] = float("nan")
    elif spoilt == "parameters":
        step.model[3].weight.data[0, 0] = float("inf")
    else:  # finite losses at the parameters, of which some gradient is not
        step.model[3].weight.register_hook(lambda gradient: gradient * float("inf"))
    before, moments = parameters_of(step.model), copy.deepcopy(step.optimizer.state_dict()["state"])
    with pytest.raises(NonFiniteError, match="not finite: "):
        step(x, y, [5, 4, 3], torch.arange(12))
    assert torch.equal(parameters_of(step.model), before)
    assert step.state.update_count == 1
    after = step.optimizer.state_dict()["state"]
    assert all(same(moments[k], after[k]) for k in moments)
