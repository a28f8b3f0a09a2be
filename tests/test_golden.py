"""Ten steps of the authors' rules: parameters, the base optimizer's state and F-SAM's mean."""

import json
from pathlib import Path

import pytest
import torch

from domainbed_adm.algorithms import base_optimizer
from domainbed_adm.method.flatness import FSAM, SAGM, SAM
from domainbed_adm.method.further_flatness import ASAM, GSAM
from domainbed_adm.method.step import TrainingStep
from domainbed_adm.training.learning_rate import LearningRate

RULES = {
    "SAM": SAM(0.05),
    "SAGM": SAGM(0.05, 0.001),
    "FSAM": FSAM(0.05, 1.0, 0.9),
    "ASAM": ASAM(0.5, 0.01),
    "ASAM_all": ASAM(0.5, 0.0, biases=True),
    "GSAM": GSAM(0.2, 0.4),
}
#: With SGD: the radius of GSAM falls with the learning rate, to half.
WITH_SGD = [("SAM", SAM(0.05)), ("FSAM", FSAM(0.2, 1.0, 0.6)), ("ASAM", ASAM(0.5, 0.01)), ("GSAM", GSAM(0.2, 0.4, 0.5))]
TOLERANCE = 1e-10


def wave(n, phase):
    return torch.sin(torch.arange(1, n + 1, dtype=torch.float64) * 1.7 + phase)


def problem():
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(wave(parameter.numel(), 0.3 * k).view_as(parameter))
    return network, torch.optim.Adam(network.parameters(), lr=0.05)


def batch(t):
    return wave(12 * 6, 0.9 * t).view(12, 6), torch.arange(12) * (t + 1) % 3


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def distance(tensors, numbers):
    return (flat(tensors) - torch.tensor(numbers, dtype=torch.float64)).abs().max().item()


@pytest.mark.parametrize("name", RULES)
def test_ten_steps_equal_the_authors(name):
    golden = json.loads((Path(__file__).parent / f"golden/{name}.json").read_text())
    network, optimizer = problem()
    step = TrainingStep(network, optimizer, RULES[name])
    parameters = list(network.parameters())
    assert len(golden["parameters"]) == 10
    for t, after in enumerate(golden["parameters"]):
        step(*batch(t))
        assert distance(parameters, after) < TOLERANCE, f"{name} leaves the authors' trajectory at step {t}"
    for moment in ("exp_avg", "exp_avg_sq"):
        assert distance([optimizer.state[p][moment] for p in parameters], golden[moment]) < TOLERANCE
    if name == "FSAM":
        kept = [step.state[f"fsam_momentum_{k}"] for k in range(len(parameters))]
        assert distance(kept, golden["momentum"]) < TOLERANCE


@pytest.mark.parametrize(("name", "rule"), WITH_SGD)
def test_ten_steps_of_the_recipe_with_sgd_equal_the_authors(name, rule):
    """SGD with momentum and weight decay, the cosine schedule of F-SAM's authors step by step."""
    golden = json.loads((Path(__file__).parent / f"golden/{name}_SGD.json").read_text())
    network, _ = problem()
    hparams = {name: golden["settings"][name] for name in ("lr", "momentum", "weight_decay", "nesterov")}
    optimizer = base_optimizer(network, {"optimizer": "sgd", **hparams})
    rate = LearningRate([optimizer], 10, {"lr_schedule": "cosine", "warmup_steps": 0})
    step, parameters = TrainingStep(network, optimizer, rule), list(network.parameters())
    for t, after in enumerate(golden["parameters"]):
        rate.set(t)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(golden["learning_rates"][t], rel=1e-14)
        step(*batch(t))
        assert distance(parameters, after) < TOLERANCE, f"{name} leaves the authors' trajectory at step {t}"
    assert distance([optimizer.state[p]["momentum_buffer"] for p in parameters], golden["momentum_buffer"]) < TOLERANCE
    if name == "FSAM":
        kept = [step.state[f"fsam_momentum_{k}"] for k in range(len(parameters))]
        assert distance(kept, golden["momentum"]) < TOLERANCE


def test_the_trajectories_tell_the_rules_apart():
    """Each rule's trajectory is far from the others': the tolerance above separates them."""
    last = {
        name: torch.tensor(json.loads((Path(__file__).parent / f"golden/{name}.json").read_text())["parameters"][-1])
        for name in RULES
    }
    for a in RULES:
        for b in RULES:
            assert a == b or (last[a] - last[b]).abs().max() > 1e-4
