"""The two halves of a step: what is between them, what ``apply`` does where numbers are not finite, micro-batches."""

import copy

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.method.curriculum import SPL
from domainbed_adm.method.difficulty import Loss
from domainbed_adm.method.flatness import FSAM, SAGM, SAM
from domainbed_adm.method.passes import cross_entropy
from domainbed_adm.method.state import StepState
from domainbed_adm.method.step import TrainingStep
from tests.method.failing import equal, fail_in, state_of
from tests.test_invariants import EVERY, make, run
from tests.toys import batch, network, parameters_of

each_method = pytest.mark.parametrize(("name", "weighting"), EVERY)
IDENTITIES = ([5, 4, 3], torch.arange(12))


@each_method
def test_a_step_is_backward_and_apply(name, weighting):
    whole, halves = make(name, weighting), make(name, weighting)
    for t in range(3):
        x, y = batch(seed=t)
        with torch.random.fork_rng(devices=[]):
            together = whole(x, y, *IDENTITIES)
        figures = halves.backward(x, y, *IDENTITIES)
        assert halves.state.update_count == t
        assert all(figure.shape == () and not figure.requires_grad for figure in figures.values())
        assert halves.apply() == together == {key: value.item() for key, value in figures.items()}
    assert equal(state_of(whole), state_of(halves))


def test_what_is_done_between_the_halves_reaches_the_optimizer():
    step = make("SAM_SSPL_ADM", model=network())
    before = parameters_of(step.model)
    step.optimizer = torch.optim.SGD(step.model.parameters(), lr=1.0)
    step.backward(*batch())
    nn.utils.clip_grad_norm_(step.model.parameters(), 0.01)
    step.apply()
    assert (parameters_of(step.model) - before).norm() == pytest.approx(0.01, rel=1e-3)


def test_apply_needs_backward_first():
    step = make("SAM", model=network())
    with pytest.raises(UserError, match=r"call backward\(\) first"):
        step.apply()
    run(step, 1)
    with pytest.raises(UserError, match=r"call backward\(\) first"):
        step.apply()


@each_method
@pytest.mark.parametrize("micro_batch", [5, 12, 1])
def test_micro_batches_equal_the_whole_batch(name, weighting, micro_batch):
    whole, parts = make(name, weighting, network()), make(name, weighting, network())
    parts.micro_batch = micro_batch
    for t in range(3):
        x, y = batch(seed=t)
        assert parts(x, y, *IDENTITIES) == pytest.approx(whole(x, y, *IDENTITIES), rel=1e-10)
        torch.testing.assert_close(parameters_of(parts.model), parameters_of(whole.model), rtol=1e-10, atol=1e-12)


def test_a_micro_batch_bounds_the_samples_of_a_pass():
    step = make("SAM_SSPL_ADM", "both", network())
    step.micro_batch, sizes = 5, []
    step.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    run(step, 1)
    assert sorted(set(sizes)) == [2, 5]
    assert sum(sizes) == 4 * 12  # clean, FGSM copies, the first gradient once more, the second pass


def test_each_micro_batch_repeats_its_own_dropout_masks():
    """Zero radius is exactly the base: the second pass of every part draws what its clean pass drew."""
    ends = []
    for name, options in (("ERM", {}), ("SAM", {"rho": 0.0})):
        step = make(name, model=network(dropout=0.5), **options)
        step.micro_batch = 5
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            run(step, 3)
            ends.append(torch.cat([parameters_of(step.model), torch.rand(3).double()]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("rule", [SAM(), SAGM(), FSAM()], ids=lambda rule: type(rule).__name__)
def test_after_a_step_that_failed_training_goes_on_as_if_it_had_not_been(rule, which, fused):
    """F-SAM's mean too; with fused optimizers, which step before the host knows, as with the others."""
    steps = []
    for _ in range(2):
        model = network().float()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=fused)
        steps.append(TrainingStep(model, optimizer, rule))
    failing, healthy = steps
    for step in steps:
        run(step, 2)
    before = state_of(failing)
    hook = fail_in(failing, which, float("nan"))
    with pytest.raises(NonFiniteError, match="gradient_norm nan"):
        run(failing, 1)
    hook.remove()
    assert equal(state_of(failing), before)
    assert failing.state.update_count == 2
    for step in steps:
        run(step, 2)
    assert equal(state_of(failing), state_of(healthy))


def test_remembered_scores_change_only_where_all_is_finite():
    step = make("SAM_SSPL_GDM", "memory", network())
    run(step, 1)
    before = state_of(step)
    hook = fail_in(step, 2, float("inf"))
    with pytest.raises(NonFiniteError):
        run(step, 1)
    hook.remove()
    assert equal(state_of(step), before)


def test_memory_asks_the_device_no_more_often_than_both(monkeypatch):
    """Which samples were seen is known on the CPU: the device is asked once, where scores were loaded."""
    asked = []
    own = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: asked.append(1) or own(tensor))
    step = make("SAM_SSPL_ADM", "memory", network())
    run(step, 3)
    assert not asked
    step.state.load_state_dict(copy.deepcopy(step.state.state_dict()))
    run(step, 3)
    assert len(asked) == 1


def test_an_optimizer_that_loaded_the_state_of_one_that_is_not_fused_steps():
    model = network().float()
    plain, fused = torch.optim.Adam(model.parameters()), torch.optim.Adam(model.parameters(), fused=True)
    run(TrainingStep(model, plain), 1)
    fused.load_state_dict(copy.deepcopy(plain.state_dict()))
    before = parameters_of(model)
    run(TrainingStep(model, fused), 2)
    assert not torch.equal(parameters_of(model), before)
    assert {int(state["step"]) for state in fused.state.values()} == {3}


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network(batch_norm=True)

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)


def test_activations_that_are_computed_anew_see_the_same_flags():
    ends = []
    for model in (Checkpointed(), network(batch_norm=True)):
        step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.1), SAM())
        for t in range(3):
            step(*batch(seed=t))
        ends.append(parameters_of(model))
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)


def test_integer_inputs_have_scores_that_are_not_rounded():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainingStep(model, optimizer, None, SPL(), Loss(), total_steps=20, weighting="memory")
    step(torch.randint(10, (12, 2)), torch.randint(3, (12,)), None, torch.arange(12))
    assert step.state["difficulty_memory"].dtype == torch.float32
    assert len(set(step.state["difficulty_memory"][:12].tolist())) > 6


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, y: cross_entropy(logits, y)[:, None],
        lambda logits, y: cross_entropy(logits, y).mean(),
        lambda logits, y: (logits.argmax(1) != y).long(),
    ],
)
@pytest.mark.parametrize("name", ["ERM", "SAM_SSPL_ADM"])
def test_a_loss_of_another_shape_is_named(name, loss):
    step = make(name, model=network())
    step.loss = loss
    with pytest.raises(UserError, match=r"one floating-point number per sample, shape \(12,\), not torch"):
        step(*batch())


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module = model


class DistributedDataParallel(Wrapped):  # stands for torch's, which needs a process group
    pass


def test_models_of_several_processes_and_lbfgs_are_refused():
    model = DistributedDataParallel(network())
    for wrapped in (model, nn.Sequential(model)):
        with pytest.raises(UserError, match="wrapped for several processes"):
            TrainingStep(wrapped, torch.optim.SGD(model.parameters(), lr=0.1))
    assert nn.parallel.DistributedDataParallel.__name__ == DistributedDataParallel.__name__
    with pytest.raises(UserError, match="LBFGS"):
        TrainingStep(network(), torch.optim.LBFGS(network().parameters()))
    with pytest.raises(UserError, match="micro_batch must be >= 1, not 0"):
        TrainingStep(network(), torch.optim.SGD(network().parameters(), lr=0.1), micro_batch=0)


def test_inputs_that_a_step_cannot_use_are_named():
    step = make("SSPL_GDM", model=network())
    x, y = batch()
    with pytest.raises(UserError, match="x and y must be one tensor each, not dict and Tensor"):
        step({"x": x}, y)
    with pytest.raises(UserError, match=r"inputs of torch.int64 have none"):
        step(x.long(), y)
    with pytest.raises(UserError, match="of one length, not 11 and 12"):
        step(x[:11], y)
    with pytest.raises(UserError, match=r"domain_sizes \[5, 4\] must sum to the 12 samples"):
        step(x, y, [5, 4])
    for index in (torch.arange(11), torch.arange(12) - 1):
        with pytest.raises(UserError, match="index must be 12 numbers >= 0"):
            make("SSPL_GDM", "memory", network())(x, y, None, index)
    with pytest.raises(UserError, match="nothing can be trained"):
        make("SAM", model=network().requires_grad_(False))(x, y)
    with pytest.raises(UserError, match="two samples or more"):
        make("SAM")(x[:1], y[:1])
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(UserError, match=r"shape \(10, 4\) is sparse: set sparse=False"):
        TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.1))(torch.randint(10, (12, 2)), y)


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_loop_wholly_within_autocast_trains_the_weights_that_it_has(kind):
    """Autocast keeps cast weights until its block ends; each step must see those that the last one left."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    around, within = make("SAM", model=network().float()), make("SAM", model=network().float())
    x = batch(dtype=torch.float32)[0]
    with torch.autocast("cpu", dtype):
        run(around, 3)
        with torch.no_grad():
            logits = around.model(x)
        run(around, 1)  # casts that were made without a graph do not reach it
    for t in (0, 1, 2, 0):
        with torch.autocast("cpu", dtype):
            run(within, 1, start=t)
        if t == 2:
            with torch.no_grad(), torch.autocast("cpu", dtype):
                assert torch.equal(within.model(x), logits)
    assert torch.equal(parameters_of(around.model), parameters_of(within.model))


def test_a_state_is_true_also_when_empty():
    assert bool(StepState())
