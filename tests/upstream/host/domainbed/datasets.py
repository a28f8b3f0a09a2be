"""The small host's datasets, one for each way in which inputs may be normalised."""

import sys

import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision import transforms

DATASETS = ["Debug28", "Pixels", "Photos", "Secret"]


def get_dataset_class(dataset_name):
    return getattr(sys.modules[__name__], dataset_name)


def num_environments(dataset_name):
    return len(get_dataset_class(dataset_name).ENVIRONMENTS)


class MultipleDomainDataset:
    N_STEPS = 5001
    CHECKPOINT_FREQ = 100
    N_WORKERS = 0
    ENVIRONMENTS = ["0", "1", "2"]
    input_shape = (3, 28, 28)
    num_classes = 2

    def __init__(self, root, test_envs, hparams):
        self.datasets = [self.environment(torch.Generator().manual_seed(i)) for i in range(len(self.ENVIRONMENTS))]

    def __getitem__(self, index):
        return self.datasets[index]

    def __len__(self):
        return len(self.datasets)


def labels(random):
    return torch.randint(2, (16,), generator=random)


class Debug28(MultipleDomainDataset):
    def environment(self, random):
        return TensorDataset(torch.randn(16, *self.input_shape, generator=random), labels(random))


class Pixels(MultipleDomainDataset):
    N_STEPS = 3

    def environment(self, random):
        return TensorDataset(torch.rand(16, *self.input_shape, generator=random), labels(random))


class Pictures:
    """Sixteen grey images behind a transform."""

    def __init__(self, transform, random):
        self.transform, self.labels = transform, labels(random)

    def __getitem__(self, index):
        return self.transform(Image.new("RGB", (28, 28), (9 * index,) * 3)), int(self.labels[index])

    def __len__(self):
        return 16


class Photos(MultipleDomainDataset):
    def environment(self, random):
        steps = [transforms.ToTensor(), transforms.Normalize([0.5, 0.5, 0.5], [0.2, 0.3, 0.4])]
        pictures = Pictures(transforms.Compose(steps), random)
        return ConcatDataset([Subset(pictures, range(8)), Subset(pictures, range(8, 16))])


class Secret(MultipleDomainDataset):
    def environment(self, random):
        scale = transforms.Lambda(lambda image: 3 * transforms.functional.to_tensor(image) - 1)
        return Pictures(transforms.Compose([scale]), random)
