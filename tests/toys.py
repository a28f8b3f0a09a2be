"""Small networks and batches in float64, the same at every call."""

import torch
from torch import nn


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=12, channels=2, size=4, classes=3, seed=0, dtype=torch.float64):
    """Inputs (n, channels, size, size) and labels (n,)."""
    random = seeded(seed)
    x = torch.rand(n, channels, size, size, generator=random, dtype=torch.float64).to(dtype)
    return x, torch.randint(classes, (n,), generator=random)


def network(seed=0, channels=2, size=4, classes=3, batch_norm=False, dropout=0.0):
    """A small network with a curved loss; its parameters come from `seed` alone."""
    layers = [nn.Flatten(), nn.Linear(channels * size * size, 10)]
    layers += [nn.BatchNorm1d(10)] if batch_norm else []
    layers += [nn.Tanh()]
    layers += [nn.Dropout(dropout)] if dropout else []
    layers += [nn.Linear(10, classes)]
    model = nn.Sequential(*layers).double()
    random = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) * 0.5)
    return model


def parameters_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def buffers_of(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}
