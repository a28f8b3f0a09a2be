import torch
from torch import nn

from domainbed_adm.method.side_effects import as_trained


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
