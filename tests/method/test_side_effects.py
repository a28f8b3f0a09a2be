import copy

import pytest
import torch
from torch import nn

from domainbed_adm.method.flatness import SAM
from domainbed_adm.method.side_effects import RandomState, as_trained
from domainbed_adm.method.step import TrainingStep


def _network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def test_as_trained_normalises_by_the_batch_without_noise_and_moves_nothing():
    torch.manual_seed(0)
    network, x = _network().eval(), torch.randn(16, 4)
    network[1].running_mean.fill_(3.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_before = torch.get_rng_state()
    with as_trained(network):
        first, second = network(x), network(x)
        hidden = network[0](x)
        normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + network[1].eps).sqrt()
        expected = network[3](normal * network[1].weight + network[1].bias)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_before)
    assert not any(module.training for module in network.modules())


def test_as_trained_keeps_the_modes_of_single_modules():
    network = _network().train()
    network[1].eval()
    with as_trained(network):
        assert network[1].training
        assert not network[2].training
    assert [module.training for module in network.modules()] == [True, True, False, True, True]


class Noisy(nn.Module):
    """Stands for timm's DropPath: noise that is no dropout module of torch's."""

    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


DropPath = type("DropPath", (Noisy,), {})


def test_as_trained_turns_off_the_noise_of_other_packages_modules():
    network, x = nn.Sequential(nn.Linear(4, 4), DropPath(), nn.Linear(4, 2)).train(), torch.randn(8, 4)
    with as_trained(network):
        assert torch.equal(network(x), network(x))
    assert not torch.equal(network(x), network(x))


def _with_statistics():
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.utils.spectral_norm(nn.Linear(8, 8)),
        nn.Unflatten(1, (2, 4)),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.BatchNorm1d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).double()


def test_running_statistics_of_every_kind_move_once_a_step():
    """A zero radius is then exactly the base, buffers and all, for spectral norms and InstanceNorm too."""
    ends, x, y = [], torch.randn(6, 8, dtype=torch.float64), torch.arange(6) % 3
    for rule in (None, SAM(rho=0.0)):
        torch.manual_seed(2)
        model = _with_statistics()
        step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.1), rule)
        start = copy.deepcopy(model.state_dict())
        for _ in range(3):
            step(x, y)
        ends.append(model.state_dict())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)
    still = [name for name, _ in model.named_buffers() if torch.equal(start[name], ends[0][name])]
    assert still == ["3.num_batches_tracked"]  # torch's InstanceNorm does not count


@pytest.mark.parametrize("kind", ["xpu", "mps", "cuda"])
def test_random_numbers_repeat_on_devices_of_any_kind(monkeypatch, kind):
    state = {"now": torch.tensor([1])}

    class Device:
        @staticmethod
        def get_rng_state(*which):
            assert which == (() if kind == "mps" else (torch.device(kind, 1),))
            return state["now"].clone()

        @staticmethod
        def set_rng_state(value, *which):
            state["now"] = value

    monkeypatch.setattr(torch, "get_device_module", lambda device: Device)
    random = RandomState([torch.device("cpu"), torch.device(kind, 1)])
    state["now"] = torch.tensor([5])
    with random.replayed():
        assert state["now"] == 1
        state["now"] = torch.tensor([2])
    assert state["now"] == 5
