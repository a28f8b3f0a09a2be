"""The official formats, written byte for byte: few images each, unless a test asks for the published numbers."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainbed_adm.datasets.classification import cifar

#: Images of each file in the small sets, and of each corruption at each severity.
SMALL = 20


def small_files(name: str) -> cifar.Files:
    """The set's files with few images in each."""
    files = cifar.CIFAR[name]
    return dataclasses.replace(files, images=dict.fromkeys(files.images, SMALL))


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the readers expect few images in every official file."""
    for name in list(cifar.CIFAR):
        monkeypatch.setitem(cifar.CIFAR, name, small_files(name))
    monkeypatch.setattr(cifar, "CORRUPTED_IMAGES", SMALL)


def draw(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3, 32, 32) and labels, uint8."""
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (n, 3, 32, 32), np.uint8), random.randint(0, classes, n).astype(np.uint8)


def binary_records(pixels: np.ndarray, *labels: Sequence[int] | np.ndarray) -> bytes:
    """The records of a binary file: label bytes, then 1024 red, green and blue pixels, row after row."""
    records = []
    for i, image in enumerate(pixels):
        colours = b"".join(image[channel].tobytes() for channel in range(3))
        records.append(bytes(int(of[i]) for of in labels) + colours)
    return b"".join(records)


def write_binary(folder: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A small set's binary files and names of classes; returns pixels and labels of each split."""
    files = small_files(name)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, names in files.splits.items():
        parts = []
        for i, file in enumerate(names):
            pixels, labels = draw(SMALL, files.classes, seed=len(split) + i)
            coarse = [labels // 5] if files.labels == 2 else []
            (folder / f"{file}.bin").write_bytes(binary_records(pixels, *coarse, labels))
            parts.append((pixels, labels))
        written[split] = tuple(map(np.concatenate, zip(*parts, strict=True)))
    # as the archive has it: a line each, and an empty one at the end
    (folder / files.names).write_text("".join(f"class_{i}\n" for i in range(files.classes)) + "\n")
    return written


def write_pickles(folder: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same as Python 2 pickled it."""
    files = small_files(name)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, names in files.splits.items():
        parts = []
        for i, file in enumerate(names):
            pixels, labels = draw(SMALL, files.classes, seed=len(split) + i)
            content = {
                "batch_label": f"{split} batch {i + 1}",
                files.key: labels.tolist(),
                "data": pixels.reshape(SMALL, -1),
                "filenames": [f"{j}.png" for j in range(SMALL)],
            }
            (folder / file).write_bytes(python2_pickle(content))
            parts.append((pixels, labels))
        written[split] = tuple(map(np.concatenate, zip(*parts, strict=True)))
    names = [f"class_{i}" for i in range(files.classes)]
    (folder / files.meta).write_bytes(python2_pickle({files.meta_key: names, "num_vis": 3072}))
    return written


def python2_pickle(content: Any) -> bytes:
    """Protocol 2 as ``cPickle`` of Python 2 writes it: text as bytes, arrays by ``numpy.core.multiarray``."""
    return b"\x80\x02" + _pickled(content) + b"."


def _pickled(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_pickled(key) + _pickled(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_pickled, value)) + b"t"
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):  # SHORT_BINSTRING and BINSTRING
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        kind = b"cnumpy\ndtype\n" + _pickled((value.dtype.str[1:], 0, 1)) + b"R"
        kind += _pickled((3, value.dtype.str[0], None, None, None, -1, -1, 0)) + b"b"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _pickled((0,)) + b"U\x01btR"
        # the state: version, shape, type, order of Fortran, bytes
        state = _pickled(1) + _pickled(value.shape) + kind + _pickled(False) + _pickled(value.tobytes())
        return empty + b"(" + state + b"tb"
    raise TypeError(type(value))


def write_corrupted(folder: Path, corruptions: Sequence[str], classes: int) -> dict[str, np.ndarray]:
    """A small corrupted set: each ``<corruption>.npy``, by severity, and ``labels.npy``; returns what it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.tile(draw(SMALL, classes)[1], 5)
    np.save(folder / "labels.npy", labels)
    written = {"labels": labels}
    for seed, name in enumerate(corruptions):
        written[name] = np.random.RandomState(seed).randint(0, 256, (5 * SMALL, 32, 32, 3), np.uint8)
        np.save(folder / f"{name}.npy", written[name])
    return written
