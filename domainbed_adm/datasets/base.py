"""What every dataset is: a list of environments over one set of classes, with DomainBed's attributes."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from domainbed_adm.datasets.cards import DatasetCard, Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domainbed_adm.datasets.augmentation import Draws
    from domainbed_adm.datasets.decoded import Decoded

#: One sample: input, float32 of ``input_shape``, and class index.
Item = tuple[torch.Tensor, int]


class Environment(Dataset[Item]):
    """One environment (domain): samples that can be seen in two ways, for evaluation and for training.

    ``environment[i]`` is sample i as evaluation sees it, always the same. ``environment.train_item(i)`` is sample i
    as training sees it, with random augmentation where ``augmented`` says so, else equal to the former.

    DomainBed differs: there a source environment is augmented when it is evaluated, too, so that its accuracies (and
    with them the model selection) are noisy and depend on the state of the random generator.

    Attributes:
        targets: class index of each sample, int64 of shape (n,); known without decoding an image.
        normalization: what :func:`to_inputs` does to pixels of 8 bits.
        augmented: whether ``train_item`` is random. It then draws from torch's global generator, as torchvision's
            transforms do; seed that to repeat a draw.
        reduced: number of images that training sees made smaller than they are, before it augments them.
        augmented_to: where set, training takes ``raw_pixels``, augmented on the device to inputs of this shape.
        decoded: the file that its images lie in decoded, if any.
    """

    targets: np.ndarray
    normalization: Normalization | None = None
    augmented: bool = False
    reduced: int = 0
    augmented_to: tuple[int, int, int] | None = None
    decoded: Decoded | None = None

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal on every machine where a run that goes on finds the data it began with.

        Taken without decoding an image: of ``targets`` here; subclasses add what they know of their inputs.
        """
        return digest(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Item:
        raise NotImplementedError

    def train_item(self, index: int) -> Item:
        """Return sample ``index`` as training sees it."""
        return self[index]

    def compact_item(self, index: int, training: bool) -> Item:
        """Return ``train_item(index)`` or ``self[index]``, or 8-bit pixels that :func:`to_inputs` turns into just that.

        Batches are made of these, so that loading processes hand over a quarter of the bytes.
        """
        return self.train_item(index) if training else self[index]

    def pass_over(self, index: int) -> None:
        """Draw what augmentation of sample ``index`` draws: what comes after it is then augmented as in one process."""
        if self.augmented:
            self.compact_item(index, training=True)

    def raw_pixels(self, index: int) -> np.ndarray:
        """Return what augmentation of sample ``index`` begins with, uint8 of shape (height, width, channels)."""
        raise NotImplementedError

    def draws(self, sizes: NDArray[np.int64], *key: object) -> Draws:
        """What augmentation draws for images whose raw pixels have these sizes, (n, 2): a function of these alone."""
        raise NotImplementedError

    def place(self, index: int) -> tuple[int, int, int]:
        """Where these lie in ``decoded``: their first byte, height and width."""
        raise NotImplementedError


def to_inputs(x: torch.Tensor, normalization: Normalization | None) -> torch.Tensor:
    """Turn uint8 pixels (..., channels, height, width) into float32 ``(x / 255 - mean) / std``; others stay.

    Without a normalisation they are in [0, 1]. Bit for bit torchvision's ``ToTensor`` and ``Normalize``, on every
    device: the divisors are tensors, since a GPU multiplies by the rounded inverse of a plain number. The host does not
    wait for it.
    """
    if x.dtype != torch.uint8:
        return x
    inputs = x.float().div_(torch.full((), 255.0, device=x.device))
    if normalization is None:
        return inputs
    mean, std = (constants(v, x.device).view(-1, 1, 1) for v in (normalization.mean, normalization.std))
    return inputs.sub_(mean).div_(std)


def constants(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """These numbers, float32, made on the device: the host would wait for a copy."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def digest(targets: np.ndarray, inputs: np.ndarray | bytes = b"") -> str:
    """A fingerprint of targets and of what stands for the inputs, 16 hexadecimal digits."""
    state = hashlib.blake2b(np.asarray(targets, dtype="<i8").tobytes(), digest_size=8)
    state.update(inputs if isinstance(inputs, bytes) else np.ascontiguousarray(inputs).data)
    return state.hexdigest()


class TensorEnvironment(Environment):
    """An environment in memory: inputs, float32 of shape (n, *input_shape), and n class indices."""

    def __init__(self, inputs: torch.Tensor, targets: Sequence[int] | np.ndarray) -> None:
        self.inputs = inputs
        self.targets = np.asarray(targets, dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Of targets and inputs."""
        return digest(self.targets, self.inputs.numpy())

    def __getitem__(self, index: int) -> Item:
        return self.inputs[index], int(self.targets[index])


class MultipleDomainDataset:
    """Several environments; indexing gives one, as in DomainBed. ``get_dataset_class`` makes one class for each card.

    Attributes:
        card: the dataset's facts; DomainBed's attributes in capitals are among them: default numbers of training steps
            and of steps between checkpoints, processes that load (0: it is in memory), names of the environments (None
            for a folder of the user's, whose instances set them).
        environments: names, in the order of ``datasets``.
        classes: names; a target is an index into them.
        input_shape: (channels, height, width).
        normalization: what was done to pixels in [0, 1]; None: nothing, inputs are in pixel units.
    """

    card: DatasetCard
    ENVIRONMENTS: list[str] | None = None
    N_STEPS: int = 5001
    CHECKPOINT_FREQ: int = 100
    N_WORKERS: int = 8

    environments: list[str]
    classes: list[str]
    input_shape: tuple[int, int, int]
    normalization: Normalization | None = None
    datasets: list[Environment]

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        """Build the dataset as DomainBed does, from the folder of datasets where it needs one.

        Environments whose index is in ``test_envs`` are held out: never augmented. Of ``hparams``,
        ``data_augmentation``, ``image_size``, ``image_channels``, ``image_crop``, ``resize_to`` and ``cutout`` are
        read, or else their defaults of folder datasets.
        """
        raise NotImplementedError

    def use_cache(self, folder: str | None) -> None:
        """Keep images decoded, in ``folder`` or else beside the data; nothing where they are in memory already."""

    def augment_on_device(self) -> None:
        """Have training images augmented on the device, by ``augmented_to``; nothing where they are not augmented."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def __getitem__(self, index: int) -> Environment:
        return self.datasets[index]

    def __len__(self) -> int:
        return len(self.datasets)
