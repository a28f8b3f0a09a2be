"""Steps of the base optimizer first, the flatness rule after them: exact, cheaper in proportion, resumed."""

import copy

import pytest
import torch

from domainbed_adm.algorithms import training_step
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.flatness import SAM
from domainbed_adm.method.grid import METHODS, Method
from domainbed_adm.method.state import StepState
from domainbed_adm.method.step import TrainingStep
from tests.toys import batch, network, parameters_of

STEPS = 10
NAMES = ["SAM", "SAGM", "FSAM", "ASAM", "GSAM", "SAM_SSPL_ADM", "FSAM_SPL_GDM"]
EVERY = [(name, weighting) for name in NAMES for weighting in (WEIGHTINGS if "_" in name else ("both",))]


def make(name, weighting="both", **given):
    model = network(batch_norm=True, dropout=0.3)
    hparams = default_hparams(name, "Debug28") | {"weighting": weighting, "total_steps": STEPS} | given
    return training_step(METHODS[name], model, torch.optim.Adam(model.parameters(), lr=0.02), hparams, StepState())


def run(step, start, stop):
    torch.manual_seed(start)
    return [step(*batch(seed=t % 3), [5, 4, 3], torch.arange(12) + t % 3) for t in range(start, stop)]


def base_of(name):
    method = METHODS[name]
    return Method(None, method.curriculum, method.difficulty).name


@pytest.mark.parametrize(("name", "weighting"), EVERY)
def test_before_it_every_step_is_the_bases_and_after_it_the_rules(name, weighting):
    """Bit for bit: five steps are those of the base, the others those of the rule from there on."""
    late, base = make(name, weighting, flatness_start=0.5), make(base_of(name), weighting)
    run(late, 0, 5)
    run(base, 0, 5)
    assert torch.equal(parameters_of(late.model), parameters_of(base.model))
    assert not any(key.startswith("fsam") for key in late.state)
    rule = make(name, weighting)
    rule.model.load_state_dict(base.model.state_dict())
    rule.optimizer.load_state_dict(copy.deepcopy(base.optimizer.state_dict()))
    rule.state.load_state_dict(copy.deepcopy(base.state.state_dict()))
    run(late, 5, STEPS)
    run(rule, 5, STEPS)
    assert torch.equal(parameters_of(late.model), parameters_of(rule.model))


@pytest.mark.parametrize("stop", [2, 5, 8])
@pytest.mark.parametrize(("name", "weighting"), EVERY)
def test_it_goes_on_bit_for_bit(name, weighting, stop):
    whole, first, second = (make(name, weighting, flatness_start=0.5) for _ in range(3))
    for step in (whole, first):
        run(step, 0, stop)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
    for step in (whole, second):
        run(step, stop, STEPS)
    assert torch.equal(parameters_of(whole.model), parameters_of(second.model))
    assert whole.state.state_dict().keys() == second.state.state_dict().keys()


@pytest.mark.parametrize(("start", "plain"), [(0.0, 0), (0.01, 1), (0.3, 3), (0.57, 6), (0.9, 9), (0.99, 10)])
def test_the_share_is_of_the_runs_steps_and_the_cost_falls_in_proportion(start, plain):
    step = make("SAM", flatness_start=start)
    calls = []
    step.model.register_forward_hook(lambda *_: calls.append(1))
    figures = run(step, 0, STEPS)
    assert len(calls) == 2 * STEPS - plain
    shares = [figure.get("flatness_share", 1.0) for figure in figures]
    assert shares == [0.0] * plain + [1.0] * (STEPS - plain)
    assert ("flatness_share" in figures[0]) == (start > 0)
    assert METHODS["SAM"].passes(flatness_start=start) == pytest.approx(6 - 3 * start)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", ["SAM_SSPL_ADM", "GSAM_SPL_GDM", "ASAM_SSPL_Loss"])
@pytest.mark.parametrize(("start", "warmup"), [(0.5, 0.0), (0.2, 0.5), (0.5, 0.2), (0.0, 0.5)])
def test_passes_are_the_mean_over_the_run(name, weighting, start, warmup):
    costs = []
    for t in range(10):
        chosen = METHODS[base_of(name)] if t < 10 * start else METHODS[name]
        warm = t < 10 * warmup and weighting != "memory"
        costs.append(3 * (1 + (t >= 10 * start)) if warm else chosen.passes(weighting))
    told = METHODS[name].passes(weighting, flatness_start=start, warmup_fraction=warmup)
    assert told == pytest.approx(sum(costs) / 10)


@pytest.mark.parametrize("start", [-0.1, 1.0, 1.5])
def test_a_share_out_of_its_range_is_refused(start):
    with pytest.raises(UserError, match="flatness_start must be in"):
        make("SAM", flatness_start=start)


def test_it_needs_to_know_the_runs_steps():
    model = network()
    with pytest.raises(UserError, match="needs total_steps"):
        TrainingStep(model, torch.optim.Adam(model.parameters()), SAM(), flatness_start=0.5)
