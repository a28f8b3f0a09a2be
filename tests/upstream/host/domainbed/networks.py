"""The small host's networks: a few linear layers with BatchNorm and dropout."""

from torch import nn


class Featurizer(nn.Module):
    def __init__(self, input_shape, hparams):
        super().__init__()
        self.n_outputs = 6
        pixels = input_shape[0] * input_shape[1] * input_shape[2]
        layers = [nn.AvgPool2d(1), nn.Flatten(), nn.Linear(pixels, 6), nn.BatchNorm1d(6), nn.Tanh()]
        self.body = nn.Sequential(*layers, nn.Dropout(hparams["host_dropout"]))

    def forward(self, x):
        return self.body(x)
