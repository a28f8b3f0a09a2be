"""The files of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), and of their corrupted versions; loads no torch.

Binary files hold one record after another: the label, of CIFAR-100 the coarse and the fine one, then 3072 pixels, all
red ones, all green, all blue, row after row. The pickles that torchvision reads hold the same.

Corrupted (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261), ``<corruption>.npy`` has the 10,000 test images at
severity 1, then at severity 2, to 5; ``labels.npy`` has their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from domainbed_adm.datasets.cards import SEVERITIES
from domainbed_adm.datasets.classification.pickles import PickledArray, load_pickle
from domainbed_adm.errors import UserError, one_line

_SHAPE = (3, 32, 32)
_PIXELS = 3072


class Images(NamedTuple):
    """Pixels, uint8 of shape (n, channels, height, width), of any strides, and class indices, int64 of shape (n,)."""

    pixels: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Files:
    """One set's files: names of those of each split, which as binary files end in ``.bin``, and images in each.

    ``labels`` is how many label bytes a binary record has, the class being the last, and ``key`` the pickles' name of
    them. ``names`` holds the names of the classes as text; ``meta`` does so as a pickle, under the key ``meta_key``.
    """

    splits: dict[str, tuple[str, ...]]
    images: dict[str, int]
    classes: int
    labels: int
    key: str
    names: str
    meta: str
    meta_key: str


CIFAR = {
    "CIFAR10": Files(
        splits={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        images={"train": 10_000, "test": 10_000},
        classes=10,
        labels=1,
        key="labels",
        names="batches.meta.txt",
        meta="batches.meta",
        meta_key="label_names",
    ),
    "CIFAR100": Files(
        splits={"train": ("train",), "test": ("test",)},
        images={"train": 50_000, "test": 10_000},
        classes=100,
        labels=2,
        key="fine_labels",
        names="fine_label_names.txt",
        meta="meta",
        meta_key="fine_label_names",
    ),
}
#: Images of one corruption at one severity.
CORRUPTED_IMAGES = 10_000


def read_split(root: Path, files: Files, split: str) -> Images:
    """Read one split, "train" or "test", from binary files, or from pickles where ``root`` holds no binary file.

    Raises:
        UserError: a file is missing, cannot be read, or has another size, type or label than it should.
    """
    read = _read_binary if _is_binary(root, files) else _read_pickle
    parts = [read(root / name, files, files.images[split]) for name in files.splits[split]]
    pixels, targets = (np.concatenate(arrays) if len(parts) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
    return Images(pixels, targets)


def read_classes(root: Path, files: Files) -> list[str]:
    """Names of the classes, in the order of the labels; "0", "1", ... where the file of names is not there.

    Raises:
        UserError: the file cannot be read, or names another number of classes.
    """
    path = root / (files.names if _is_binary(root, files) else files.meta)
    if not path.exists():
        return list(map(str, range(files.classes)))
    if path.name == files.meta:
        listed = load_pickle(path).get(files.meta_key)
        names = [str(name) for name in listed] if isinstance(listed, list) else []
    else:
        try:
            names = path.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    if len(names) != files.classes:
        raise UserError(f"{path} names {len(names)} classes, {files.classes} are expected: get the file anew")
    return names


def _is_binary(root: Path, files: Files) -> bool:
    pickled = any((root / name).exists() for names in files.splits.values() for name in names)
    return not pickled or any(root.glob("*.bin"))


def _read_binary(path: Path, files: Files, images: int) -> Images:
    path = path.with_name(f"{path.name}.bin")
    record = files.labels + _PIXELS
    expected = images * record
    try:
        size = path.stat().st_size
        content = np.fromfile(path, np.uint8) if size == expected else np.empty(0, np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if size != expected or len(content) != expected:
        raise UserError(
            f"{path} has {size:,} bytes, {expected:,} are expected ({images:,} records of {record:,}): get it anew"
        )
    records = content.reshape(images, record)
    targets = _checked(path, records[:, files.labels - 1], images, files.classes)
    return Images(records[:, files.labels :].reshape(images, *_SHAPE), targets)


def _read_pickle(path: Path, files: Files, images: int) -> Images:
    content = load_pickle(path)
    for key in ("data", files.key):
        if key not in content:
            raise UserError(f"{path} has no {key!r}, but {', '.join(map(repr, sorted(content)))}: get the file anew")
    data = content["data"]
    if not isinstance(data, PickledArray):
        raise UserError(f"{path}: 'data' is no array but {type(data).__name__}: get the file anew")
    try:
        pixels = data.array()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error)}: get the file anew") from error
    if pixels.shape != (images, _PIXELS):
        raise UserError(f"{path}: 'data' has shape {pixels.shape}, {(images, _PIXELS)} is expected: get the file anew")
    return Images(pixels.reshape(images, *_SHAPE), _checked(path, content[files.key], images, files.classes))


def _checked(path: Path, labels: Sequence[Any] | np.ndarray, images: int, classes: int) -> np.ndarray:
    """The labels as int64.

    Raises:
        UserError: they are not as many integers, or one is no class.
    """
    try:
        array = np.asarray(labels)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0)
    if array.dtype.kind not in "iu" or array.shape != (images,):
        raise UserError(
            f"{path}: labels are {array.dtype} of shape {array.shape}, {images:,} integers are expected: "
            "get the file anew"
        )
    wrong = np.flatnonzero((array < 0) | (array >= classes))
    if len(wrong):
        raise UserError(
            f"{path}: the label of image {wrong[0]} is {array[wrong[0]]}, labels are 0 to {classes - 1}: "
            "get the file anew"
        )
    return array.astype(np.int64)


def open_corrupted(root: Path, corruption: str) -> np.ndarray:
    """Map ``<corruption>.npy`` into memory: uint8 of shape (5, images, 3, 32, 32), by severity; nothing is read yet.

    Raises:
        UserError: the file is missing, cannot be read, or is no array of this type and shape.
    """
    images = SEVERITIES * CORRUPTED_IMAGES
    array = _load(root / f"{corruption}.npy", "uint8", (images, 32, 32, 3))
    return np.moveaxis(array.reshape(SEVERITIES, CORRUPTED_IMAGES, 32, 32, 3), 4, 2)


def read_corrupted_labels(root: Path, classes: int) -> np.ndarray:
    """The labels of ``labels.npy``, int64 of shape (5, images), by severity.

    Raises:
        UserError: the file is missing, cannot be read, is no array of integers of this shape, or has another label.
    """
    images, path = SEVERITIES * CORRUPTED_IMAGES, root / "labels.npy"
    array = _load(path, None, (images,))
    return _checked(path, np.asarray(array), images, classes).reshape(SEVERITIES, CORRUPTED_IMAGES)


def _load(path: Path, dtype: str | None, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # which, unlike np.load, knows no pickles at all
    except Exception as error:  # of NumPy's parser of the header
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 120)
        raise UserError(f"{path} cannot be read as an array (.npy): {reason}: get the file anew") from error
    if array.shape != shape or array.dtype != (dtype or array.dtype):
        raise UserError(
            f"{path} is {array.dtype} of shape {array.shape}, {dtype or 'integers'} of shape {shape} "
            f"{'is' if dtype else 'are'} expected: get the file anew"
        )
    return array
