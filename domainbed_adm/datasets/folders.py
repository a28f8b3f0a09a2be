"""Folder datasets: ``<data_dir>/<directory>/<environment>/<class>/<image>``, the named ones and the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from domainbed_adm.datasets.augmentation import Draws, draw, draw_windows
from domainbed_adm.datasets.base import Environment, Item, MultipleDomainDataset, digest, to_inputs
from domainbed_adm.datasets.cards import IMAGENET, IMAGENET_GREY, Normalization
from domainbed_adm.datasets.decoded import Decoded, decode_once, reduced_side, training_pixels
from domainbed_adm.datasets.images import load_image, short_side, upright_size
from domainbed_adm.datasets.layout import Inventory, dataset_root, environments, take_inventory
from domainbed_adm.datasets.transforms import Resize, augment_transform, eval_transform, first_resize
from domainbed_adm.errors import UserError


class FolderEnvironment(Environment):
    """One environment of image files, given by index of their class; decoded, with 1 or 3 channels, when asked for.

    ``augment`` is the transform of ``train_item`` where it is not ``evaluate``; their pixels get the normalisation.
    ``resize`` is what both begin with, if anything.
    """

    def __init__(
        self,
        folder: Path,
        images: Mapping[int, Sequence[Path]],
        channels: int,
        evaluate: Callable[[Image.Image], torch.Tensor],
        augment: Callable[[Image.Image], torch.Tensor] | None,
        normalization: Normalization | None,
        resize: Resize | None = None,
    ) -> None:
        self.paths = [str(path) for files in images.values() for path in files]
        self.targets = np.repeat(np.array(list(images), dtype=np.int64), [len(files) for files in images.values()])
        self.augmented, self.normalization = augment is not None, normalization
        self._folder = str(folder)
        self._channels, self._evaluate, self._augment, self._resize = channels, evaluate, augment, resize
        self._first = 0

    def use_decoded(self, decoded: Decoded, first: int) -> None:
        """Take images from there from now on; this environment's begin with number ``first``."""
        self.decoded, self._first = decoded, first
        self.reduced = int(decoded.reduced[first : first + len(self)].sum()) if self.augmented else 0

    def augment_on_device(self, shape: tuple[int, int, int]) -> None:
        """Have training take ``raw_pixels`` from now on, where it augments; to be called after ``use_decoded``."""
        if self.augmented:
            self.augmented_to = shape
            if self.decoded is None and self._resize is None:
                self.reduced = sum(short_side(path) > reduced_side(shape[1]) for path in self.paths)

    def raw_pixels(self, index: int) -> np.ndarray:
        """Return what augmentation of sample ``index`` begins with, the same whether it was decoded before or not."""
        if self.decoded:
            return self.decoded.pixels(self._first + index)
        assert self.augmented_to is not None
        return training_pixels(load_image(self.paths[index], self._channels), self.augmented_to[1], self._resize)

    def draws(self, sizes: NDArray[np.int64], *key: object) -> Draws:
        """What is drawn for images whose raw pixels have these sizes."""
        assert self.augmented_to is not None
        return draw_windows(sizes, self.augmented_to[1], *key) if self._resize else draw(sizes, *key)

    def place(self, index: int) -> tuple[int, int, int]:
        """Where these lie in ``decoded``: their first byte, height and width."""
        assert self.decoded is not None
        return self.decoded.place(self._first + index)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the targets, and of the files' paths below the environment's folder and their sizes.

        Raises:
            UserError: a file has gone since it was listed.
        """
        try:
            files = [f"{os.path.relpath(path, self._folder)}\0{Path(path).stat().st_size}" for path in self.paths]
        except OSError as error:
            raise UserError(f"cannot read image {error.filename}: {error.strerror}") from error
        return digest(self.targets, os.fsencode("\0".join(files)))

    def __getitem__(self, index: int) -> Item:
        return self._inputs(*self.compact_item(index, training=False))

    def train_item(self, index: int) -> Item:
        """Return sample ``index`` as training sees it: newly augmented at each call where ``augmented``."""
        return self._inputs(*self.compact_item(index, training=True))

    def compact_item(self, index: int, training: bool) -> Item:
        """Return the pixels of sample ``index``, uint8 of shape (channels, height, width), and its class index."""
        decoded, number, transform = self.decoded, self._first + index, self._augment if training else None
        pixels = decoded.evaluated(number) if decoded and transform is None else None
        if pixels is None:
            image = decoded.image(number) if decoded else load_image(self.paths[index], self._channels)
            pixels = (transform or self._evaluate)(image)
        return pixels, int(self.targets[index])

    def pass_over(self, index: int) -> None:
        """As its base, without decoding: what is drawn depends on an image's size alone."""
        if self._augment is None:
            return
        if self.decoded:
            size: tuple[int, int] | None = self.decoded.place(self._first + index)[:0:-1]
        else:
            size = upright_size(self.paths[index])
        if size is None:
            super().pass_over(index)
        else:
            self._augment(Image.new("L", size))

    def _inputs(self, pixels: torch.Tensor, target: int) -> Item:
        return to_inputs(pixels, self.normalization), target


class FolderDataset(MultipleDomainDataset):
    """Environments are the sorted folders of the dataset, classes the sorted union of theirs, samples in path order.

    Sample order equals DomainBed's (torchvision's ``ImageFolder``), so that splits are the same. Labels differ where an
    environment lacks a class: DomainBed numbers the classes of each environment by themselves, so that every later
    label is shifted by one; here one class name has one number. Images are listed as
    :mod:`domainbed_adm.datasets.layout` says: DomainBed also reads hidden files, such as the ``._name.jpg`` that
    archives packed on a Mac hold beside each image, and follows every link to a folder.

    Raises:
        UserError: as :mod:`domainbed_adm.datasets.layout` does, or a domain holds no class folder, a class folder
            holds no image, something cannot be read or followed, or the hparam ``resize_to`` is too small.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        resize, root = first_resize(hparams), dataset_root(self.card, data_dir)
        inventory = self.list_images(root)
        for problem in inventory.problems:
            if problem.kind in {"broken", "empty"}:
                raise UserError(f"{problem.path}: {problem.reason} (verify_data names all that is wrong)")
        self.classes = sorted(set().union(*inventory.images.values()))
        size, channels = hparams.get("image_size", 224), hparams.get("image_channels", 3)
        self.normalization = {1: IMAGENET_GREY, 3: IMAGENET}.get(channels)
        self.input_shape = (channels, size, size)
        self._root, self._resize = root, resize
        self._evaluate = eval_transform(size, channels, resize)
        augment = augment_transform(size, resize) if hparams.get("data_augmentation", True) else None
        self.datasets = []
        for i, (folder, classes) in enumerate(inventory.images.items()):
            images = {self.classes.index(name): files for name, files in classes.items()}
            own = None if i in test_envs else augment
            transforms = self._evaluate, own, self.normalization, resize
            self.datasets.append(FolderEnvironment(root / folder, images, channels, *transforms))

    def list_images(self, root: Path) -> Inventory:
        """The images of each environment and class, whose names this sets as ``environments``."""
        self.environments = self.ENVIRONMENTS = environments(self.card, root)
        return take_inventory(root)

    def use_cache(self, folder: str | None) -> None:
        """Read images from a file that holds them decoded, in ``folder`` or beside the data; it is made where absent.

        Raises:
            UserError: an image cannot be decoded.
        """
        environments = [environment for environment in self.datasets if isinstance(environment, FolderEnvironment)]
        paths = [path for environment in environments for path in environment.paths]
        decoded = decode_once(self._root, paths, *self.input_shape[::2], self._evaluate, folder, self._resize)
        if decoded is None:
            return
        first = 0
        for environment in environments:
            environment.use_decoded(decoded, first)
            first += len(environment)
        self._tell_reduced()

    def augment_on_device(self) -> None:
        """Have training images augmented on the device, from the pixels of the cache or else decoded as it does."""
        for environment in self.datasets:
            if isinstance(environment, FolderEnvironment):
                environment.augment_on_device(self.input_shape)
        if not any(environment.decoded for environment in self.datasets):
            self._tell_reduced()

    def _tell_reduced(self) -> None:
        reduced, side = sum(environment.reduced for environment in self.datasets), reduced_side(self.input_shape[1])
        if reduced:
            print(
                f"{reduced:,} training images are above {side} px: augmented from a copy whose short side is {side} px"
            )
