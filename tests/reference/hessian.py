"""Slow twins of the analysis of flatness: the loss as one function of one flat vector, its Hessian as a matrix."""

import math

import torch
import torch.nn.functional as F
from torch.func import functional_call

from domainbed_adm.analysis.mean_loss import MeanLoss


def mean_loss(model, flat, batches):
    """The mean cross-entropy at these parameters, each mini-batch passed through the model as it is."""
    named, at = {}, 0
    for name, param in model.named_parameters():
        named[name] = flat[at : at + param.numel()].view(param.shape)
        at += param.numel()
    total = sum(F.cross_entropy(functional_call(model, named, x), y) * len(y) for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def dense_hessian(model, batches):
    flat = torch.cat([param.detach().flatten() for param in model.parameters()])
    return torch.autograd.functional.hessian(lambda theta: mean_loss(model, theta, batches), flat)


def sam_rise(model, batches, rho):
    flat = torch.cat([param.detach().flatten() for param in model.parameters()]).requires_grad_()
    here = mean_loss(model, flat, batches)
    (gradient,) = torch.autograd.grad(here, flat)
    length = math.sqrt(sum(g * g for g in gradient.tolist()))
    there = [t + rho * g / length for t, g in zip(flat.tolist(), gradient.tolist(), strict=True)]
    return mean_loss(model, torch.tensor(there, dtype=flat.dtype), batches).item() - here.item()


class Quadratic(MeanLoss):
    """L(theta) = theta^T A theta / 2, whose Hessian is A."""

    def __init__(self, matrix, *params):
        super().__init__(lambda x: x, params, [(torch.zeros(1), torch.zeros(1))], 1)
        self.matrix = matrix

    def _share(self, x, y):
        theta = torch.cat([param.flatten() for param in self.params])
        return theta @ self.matrix @ theta / 2

    def value_and_accuracy(self):
        return self._share(None, None).item(), 1.0
