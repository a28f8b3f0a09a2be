"""The small host's algorithms: its ERM, and one more."""

import sys

import torch
from torch import nn

from domainbed import networks

ALGORITHMS = ["ERM", "Smoothed"]


def get_algorithm_class(algorithm_name):
    found = getattr(sys.modules[__name__], algorithm_name, None)
    if found is None:
        raise NotImplementedError(algorithm_name)
    return found


class ERM(nn.Module):
    smoothing = 0.0

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.hparams = hparams
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = nn.Linear(self.featurizer.n_outputs, num_classes)
        self.network = nn.Sequential(self.featurizer, self.classifier)
        weights = self.network.parameters()
        self.optimizer = torch.optim.Adam(weights, lr=hparams["lr"], weight_decay=hparams["weight_decay"])

    def update(self, minibatches, unlabeled=None):
        inputs, labels = (torch.cat(list(column)) for column in zip(*minibatches, strict=True))
        loss = nn.functional.cross_entropy(self.predict(inputs), labels, label_smoothing=self.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def predict(self, x):
        return self.network(x)


class Smoothed(ERM):
    smoothing = 0.1
