"""What a flatness rule costs in memory."""

import pytest
import torch

from benchmarks.memory import PeakMemory
from domainbed_adm.method.flatness import SAGM, SAM
from domainbed_adm.method.step import TrainingStep

WIDTH = 400


def peak_of_a_step(flatness):
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 4))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    # SGD keeps nothing and needs no room of its own, so that the peak is the passes'
    step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.01), flatness)
    x, y = torch.rand(8, WIDTH), torch.arange(8) % 4
    step(x, y)
    with PeakMemory() as memory:
        step(x, y)
    return memory.peak, size


@pytest.mark.parametrize(("rule", "copies"), [(None, 0), (SAM(), 1), (SAGM(), 2)])
def test_a_rule_needs_as_many_copies_of_the_parameters_as_it_says(rule, copies):
    """Beside the gradients; SAM's is the copy that puts the parameters back, bit for bit."""
    peak, size = peak_of_a_step(rule)
    assert 0.98 * size <= peak - copies * size <= 1.05 * size


def test_the_meter_counts_what_is_alive_at_one_time():
    with PeakMemory() as memory:
        for _ in range(5):
            held = torch.zeros(1000)
            held = held + 1
        del held
    assert memory.peak == 8000
    assert memory.alive == pytest.approx(0)
