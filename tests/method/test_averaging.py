"""EMA against its formula, SWAD's decisions and weights against its authors' code, and what both must leave alone."""

import io
import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from domainbed_adm.method.averaging import EMA, SWAD, Valley, estimate_statistics, has_moving_statistics, loss_valley
from tests.toys import batch, buffers_of, network, parameters_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/SWAD.json").read_text())
STANDARD = (3, 6, 0.3)


def moved(model, t):
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.sin(torch.arange(parameter.numel()) * 1.3 + k + 0.7 * t).view_as(parameter))


def test_ema_is_its_formula():
    model = network(batch_norm=True)
    average, wanted = EMA(model, 0.6), parameters_of(model)
    mean = model[2].running_mean.clone()
    for t in range(1, 12):
        moved(model, t)
        model(batch(seed=t)[0])
        average.update()
        decay = min(0.6, (1 + t) / (10 + t))
        wanted = decay * wanted + (1 - decay) * parameters_of(model)
        mean = decay * mean + (1 - decay) * model[2].running_mean
    with average.held():
        torch.testing.assert_close(parameters_of(model), wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model[2].running_mean, mean, rtol=1e-12, atol=1e-12)


def test_no_decay_is_the_last_weights():
    model = network()
    average = EMA(model, 0.0)
    for t in range(3):
        moved(model, t)
        average.update()
    before = parameters_of(model)
    with average.held():
        assert torch.equal(parameters_of(model), before)


@pytest.mark.parametrize("number", range(len(GOLDEN["cases"])))
def test_swad_is_its_authors(number):
    """The steps that are averaged, and the weights: those of step t are sin(0.37 t) and t."""
    golden = GOLDEN["cases"][number]
    settings = golden["settings"]
    how = settings["n_converge"], settings["n_tolerance"], settings["tolerance_ratio"]
    model = torch.nn.Linear(2, 1, bias=False).double()
    average, losses, freq = SWAD(model, *how), iter(golden["losses"]), golden["freq"]
    for step in range(golden["n_steps"]):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[torch.sin(torch.tensor(0.37 * step, dtype=torch.float64)), step]]))
        average.update()
        if step % freq == 0 and (loss := next(losses, None)) is not None:
            average.end_segment(loss)
    assert average.valley.dead == golden["dead"]
    if golden["converge_step"] is not None:
        assert average.ends[average.valley.converged] == golden["converge_step"]
        assert average.valley.threshold == pytest.approx(golden["threshold"], rel=1e-12)
    before = parameters_of(model)
    average.finish()
    with average.held():
        assert parameters_of(model).tolist() == pytest.approx(golden["weights"], rel=1e-9)
    assert torch.equal(parameters_of(model), before)


def test_the_recorded_curves_tell_decisions_apart():
    """There are curves that die, that end within the valley, and that never converge."""
    cases = GOLDEN["cases"]
    assert {(case["dead"], case["converge_step"] is None) for case in cases} == {
        (True, False),
        (False, False),
        (False, True),
    }


def test_the_valley_begins_and_ends_where_the_loss_says():
    falling, flat, rising = [2.0, 1.5, 1.0, 0.8, 0.6], [0.5] * 8, [5.0] * 8
    assert loss_valley(falling, *STANDARD) == Valley()
    assert loss_valley(falling, *STANDARD, ended=True).taken == (4,)
    ended = loss_valley(falling + flat, *STANDARD, ended=True)
    assert not ended.dead
    assert min(ended.taken) > 3  # the losses before are above 0.5 * 1.3
    died = loss_valley(falling + flat + rising, *STANDARD)
    assert died.dead
    assert max(died.taken) == 12  # the last of those within it
    assert loss_valley(falling + flat + rising + flat, *STANDARD, ended=True) == died


@pytest.mark.parametrize("kind", ["ema", "swad"])
def test_an_average_goes_on_from_its_state_bit_for_bit(kind):
    losses = [2.0, 1.0, 0.5, 0.6, 0.6, 0.55, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6]

    def made():
        return EMA(network(), 0.9) if kind == "ema" else SWAD(network(), *STANDARD)

    def run(average, start, stop):
        for t in range(start, stop):
            with torch.no_grad():
                for k, parameter in enumerate(average.params):
                    parameter.copy_(torch.sin(torch.arange(parameter.numel()) * 1.3 + k + 0.7 * t).view_as(parameter))
            average.update()
            if kind == "swad" and t % 3 == 2:
                average.end_segment(losses[t // 3])

    whole = made()
    run(whole, 0, 36)
    for stop in (1, 7, 9, 20, 27, 35):
        first, second = made(), made()
        run(first, 0, stop)
        second.load_state_dict(reloaded(first.state_dict()))
        run(second, stop, 36)
        if kind == "swad":
            second.finish()
        wanted = reloaded(whole.state_dict())
        if kind == "swad":
            finished = made()
            finished.load_state_dict(wanted)
            finished.finish()
            assert len(set(finished.valley.taken)) > 3
            wanted = finished.state_dict()
        assert all(map(torch.equal, second.average, wanted["average"]))


def reloaded(state):
    """As a file gives it back that holds tensors and plain values alone."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation.__name__)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [lambda m: EMA(m, 0.9), lambda m: SWAD(m, *STANDARD)], ids=["ema", "swad"])
def test_a_step_costs_one_operation_and_one_copy(make):
    model = network()
    average = make(model)
    average.update()
    with Operations() as operations:
        average.update()
    assert operations.names == ["_foreach_lerp_.Scalar"]
    kept = average.state_dict()
    held = kept["average"] + kept.get("segment", []) + kept.get("mean", [])
    assert sum(tensor.numel() for tensor in held) == len(parameters_of(model))


@pytest.mark.parametrize("frozen", [False, True])
def test_statistics_are_means_over_the_batches_and_stay_where_they_stand_still(frozen):
    model = network(batch_norm=True)
    model.train()
    if frozen:
        model[2].eval()
    assert has_moving_statistics(model) != frozen
    model[2](torch.rand(12, 10, dtype=torch.float64))
    before = buffers_of(model)
    batches = [batch(seed=k)[0] for k in range(5)]
    estimate_statistics(model, model, batches)
    after = buffers_of(model)
    if frozen:
        assert all(torch.equal(before[name], after[name]) for name in before)
        return
    hidden = [model[1](model[0](x)) for x in batches]
    torch.testing.assert_close(after["2.running_mean"], torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(after["2.running_var"], torch.stack([h.var(0) for h in hidden]).mean(0))
    assert torch.equal(before["2.num_batches_tracked"], after["2.num_batches_tracked"])
    assert model[2].momentum == 0.1
