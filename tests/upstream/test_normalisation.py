"""Reading a normalisation from what a dataset states."""

import pytest
import torch
from torch.utils.data import ConcatDataset, TensorDataset
from torchvision import transforms
from torchvision.transforms import v2

from domainbed_adm.upstream.run import NotStatedError, input_std

NORMALIZE = transforms.Normalize([0.5] * 3, [0.2, 0.3, 0.4])
OTHER = transforms.Normalize([0.5] * 3, [0.5] * 3)


class Environment:
    def __init__(self, *steps):
        self.transform = transforms.Compose(list(steps)) if steps else None


class Dataset:
    def __init__(self, *environments):
        self.datasets = list(environments)


def tensors(scale):
    return TensorDataset(torch.linspace(0, 1, 8).view(2, 1, 2, 2) * scale, torch.zeros(2))


KNOWN = {
    "normalised": ([0.2, 0.3, 0.4], Environment(transforms.ToTensor(), NORMALIZE)),
    "nested": (
        [0.2, 0.3, 0.4],
        Environment(transforms.Compose([transforms.ToTensor()]), transforms.Compose([NORMALIZE])),
    ),
    "pixels": (None, Environment(transforms.Resize(8), transforms.ToTensor())),
    "tensors": (None, tensors(1.0)),
    "v2": ([0.5, 0.5, 0.5], Environment(v2.ToImage(), v2.Normalize([0.5] * 3, [0.5] * 3))),
    "own step before a Normalize": ([0.2, 0.3, 0.4], Environment(str, transforms.ToTensor(), NORMALIZE)),
    "concatenated": (None, ConcatDataset([tensors(1.0), tensors(0.5)])),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_is_stated_is_read(case):
    std, environment = KNOWN[case]
    assert input_std(Dataset(environment, environment)) == std


UNKNOWN = {
    "not within": [tensors(2.0)],
    "states no transform": [object()],
    "Environment states no transform": [Environment()],
    "normalised differently": [Environment(transforms.ToTensor(), NORMALIZE), tensors(1.0)],
    "normalises twice": [Environment(transforms.ToTensor(), NORMALIZE, OTHER)],
    "no Normalize, and a function": [Environment(transforms.ToTensor(), lambda x: x)],
    "neither a Normalize nor a ToTensor": [Environment(transforms.PILToTensor())],
    "no environments": [],
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_is_not_stated_is_not_guessed(reason):
    dataset = Dataset(*UNKNOWN[reason])
    dataset.__class__ = type("Sized", (Dataset,), {"__len__": lambda self: len(self.datasets)})
    with pytest.raises(NotStatedError, match=reason):
        input_std(dataset)
