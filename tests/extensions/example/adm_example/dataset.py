"""A dataset of two environments, in memory."""

import torch

from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment


class Stripes(MultipleDomainDataset):
    def __init__(self, data_dir, test_envs, hparams):
        self.environments, self.classes = ["0", "1"], ["dark", "bright"]
        self.input_shape, self.normalization = (3, 28, 28), None
        targets = torch.arange(20) % 2
        images = [(targets[:, None, None, None] * 0.5 + torch.rand(20, *self.input_shape) / 2) for _ in range(2)]
        self.datasets = [TensorEnvironment(x, targets.numpy()) for x in images]
