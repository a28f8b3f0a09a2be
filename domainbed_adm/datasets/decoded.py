"""Images decoded once: the pixels of a folder dataset in one file, mapped into memory by every process that reads it.

The file holds the pixels of each image, uint8 of shape (height, width, channels), in the order of the dataset, and at
its end an index of them. Where evaluation and training both begin with one resizing, images are kept after it, and both
are what they are from the files. Else an image whose short side is above ``SHORT_SIDE`` px, or above the run's image
size where that is more, is kept smaller, for training; its pixels of evaluation, made from it at its own size, follow
it.

The file's name has a fingerprint of the images' paths, sizes and times of change, the versions of what decodes them,
and what was resized to which size. It is made by one process while others wait, and is there whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import PIL
import torch
from PIL import Image

from domainbed_adm.datasets.images import load_image
from domainbed_adm.datasets.layout import FOLDER
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import ProgressBar, warn
from domainbed_adm.system.disk import LockedError, RefusedError, replacing, run_lock
from domainbed_adm.system.process import cpu_count

if TYPE_CHECKING:
    from domainbed_adm.datasets.transforms import Resize

#: The version of the file's layout and of what :mod:`domainbed_adm.datasets.images` makes of a file.
VERSION = 1
#: Short side in px up to which images are kept at their own size.
SHORT_SIDE = 320

_CHUNK = 256
_PIECE = 2**26
_SILENCE = 30.0


def reduced_side(image_size: int) -> int:
    """Short side in px above which images are reduced, for evaluation at ``image_size``."""
    return max(SHORT_SIDE, image_size)


class Decoded:
    """A whole file of decoded images, by their number in the dataset; pickled, it is the file's name and shape.

    Args:
        path: the file.
        count: number of images.
        channels: 1 or 3.
        image_size: side in px of the images of evaluation.
    """

    def __init__(self, path: Path, count: int, channels: int, image_size: int) -> None:
        self.path = path
        self._shape = count, channels, image_size

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, *self._shape)

    @cached_property
    def _map(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        try:
            return np.memmap(self.path, np.uint8, "r")
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}; the same command makes it again") from error

    @cached_property
    def _index(self) -> np.ndarray:
        """Of each image: where it begins, height, width, and where its pixels of evaluation begin or -1."""
        return np.frombuffer(self._map[-32 * self._shape[0] :].tobytes(), "<i8").reshape(-1, 4)

    def is_whole(self) -> bool:
        """Whether the file is there, as long as its index says."""
        try:
            start, height, width, evaluated = self._index.T
            ends = start + height * width * self._shape[1], evaluated + self._shape[1] * self._shape[2] ** 2
            end = max(ends[0].max(), ends[1][evaluated >= 0].max(initial=0))
        except (UserError, ValueError):
            return False
        return bool(end == len(self._map) - 32 * self._shape[0])

    @property
    def reduced(self) -> np.ndarray:
        """Whether each image is kept smaller than it is, bool of shape (count,)."""
        return self._index[:, 3] >= 0

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        return len(self._map) - 32 * self._shape[0]

    def on(self, device: torch.device) -> torch.Tensor:
        """All pixels in the device's memory, uint8 of shape (size,)."""
        held = torch.empty(self.size, dtype=torch.uint8, device=device)
        for start in range(0, self.size, _PIECE):
            piece = np.array(self._map[start : min(start + _PIECE, self.size)])
            held[start : start + _PIECE].copy_(torch.from_numpy(piece))
        return held

    def place(self, number: int) -> tuple[int, int, int]:
        """Where the pixels that training begins with lie: their first byte, height and width."""
        start, height, width, _ = self._index[number].tolist()
        return start, height, width

    def pixels(self, number: int) -> np.ndarray:
        """The pixels that training begins with, uint8 of shape (height, width, channels): a view of the file."""
        start, height, width = self.place(number)
        shape = height, width, self._shape[1]
        return self._map[start : start + height * width * shape[2]].reshape(shape)

    def image(self, number: int) -> Image.Image:
        """The same as an image: what ``load_image`` gives, where it is not reduced."""
        pixels = self.pixels(number)
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def evaluated(self, number: int) -> torch.Tensor | None:
        """A reduced image's pixels of evaluation, uint8 of shape (channels, image_size, image_size); else None."""
        start, (_, channels, side) = int(self._index[number, 3]), self._shape
        if start < 0:
            return None
        return torch.from_numpy(np.array(self._map[start : start + channels * side**2])).view(channels, side, side)


def decode_once(
    root: Path,
    paths: Sequence[str],
    channels: int,
    image_size: int,
    evaluate: Callable[[Image.Image], torch.Tensor],
    cache_dir: str | None,
    resize: Resize | None = None,
) -> Decoded | None:
    """Return the images of a dataset decoded; made first, where they are not there or the files have changed.

    Args:
        root: folder of the dataset.
        paths: the images, below it.
        channels: 1 or 3.
        image_size: side in px of the images of evaluation.
        evaluate: gives those, uint8 of shape (channels, image_size, image_size).
        cache_dir: folder for the file; None: ``FOLDER`` beside the dataset's.
        resize: what evaluation and training both begin with, if anything.

    Returns:
        None, and a warning was printed, where the file cannot be written.

    Raises:
        OSError: never; it becomes a warning.
        UserError: an image cannot be decoded.
    """
    name = f"{root.name}-{channels}"
    if cache_dir is None:
        folder = root.parent / FOLDER / name
    else:  # datasets of one name in several places take nothing from each other
        folder = Path(cache_dir) / f"{name}-{_digest(os.fsencode(os.path.realpath(root)))}"
    fingerprint = _fingerprint(root, paths)
    stem = f"{fingerprint}-v{VERSION}-pillow{PIL.__version__}-{resize or reduced_side(image_size)}"
    # the image size matters where an image is reduced, which is known when all are decoded
    plain, sized = folder / f"{stem}.pixels", folder / f"{stem}-{image_size}.pixels"

    def find() -> Decoded | None:
        there = (Decoded(path, len(paths), channels, image_size) for path in (plain, sized))
        return next((decoded for decoded in there if decoded.is_whole()), None)

    def make() -> None:
        _remove_others(folder, fingerprint, root)
        decode = partial(_decode, channels=channels, image_size=image_size, evaluate=evaluate, resize=resize)
        if not _make(sized, paths, decode):
            sized.rename(plain)
        if find() is None:
            for path in (plain, sized):
                path.unlink(missing_ok=True)
            raise OSError(errno.ENODEV, "its files cannot be mapped into memory")

    try:
        return _found_or_made(folder, find, make, f"waiting for another process, which decodes {root}")
    except (RefusedError, OSError) as error:
        refusal = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = getattr(refusal, "strerror", None) or refusal
        warn(f"training goes on without --cache: {folder} cannot be used: {reason}")
        return None


def _found_or_made(
    folder: Path, find: Callable[[], Decoded | None], make: Callable[[], None], waiting: str
) -> Decoded | None:
    """What ``find`` finds; made first under the folder's lock, unless another process does so."""
    told = False
    while (decoded := find()) is None:
        try:
            with run_lock(folder):
                if find() is None:  # nobody made it in between
                    make()
        except LockedError:
            if not told:
                print(waiting, flush=True)
            told = True
    return decoded


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _fingerprint(root: Path, paths: Sequence[str]) -> str:
    try:
        facts = [(os.path.relpath(path, root), Path(path).stat()) for path in paths]
    except OSError as error:
        raise UserError(f"cannot read image {error.filename}: {error.strerror}") from error
    lines = [f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}" for name, stat in facts]
    return _digest(os.fsencode("\0".join(lines)))


def _remove_others(folder: Path, fingerprint: str, root: Path) -> None:
    """Remove caches of other files, and what a killed process left."""
    others = [path for path in folder.glob("*.pixels") if not path.name.startswith(fingerprint)]
    if others:
        print(f"the files of {root} changed since they were decoded: they are decoded again")
    for path in (*others, *folder.glob("*.unfinished")):
        path.unlink(missing_ok=True)


def _make(path: Path, paths: Sequence[str], decode: Callable[[str], tuple[np.ndarray, np.ndarray | None]]) -> bool:
    """Write the file; returns whether it holds an image that is reduced.

    Raises:
        RefusedError: the system refuses to write it.
        OSError: never; it becomes a RefusedError.
        UserError: an image cannot be decoded.
    """
    print(f"decoding {len(paths):,} images once, into {path.parent}", flush=True)
    start = told = time.monotonic()
    index = np.full((len(paths), 4), -1, dtype="<i8")
    with (
        replacing(path) as file,
        ThreadPoolExecutor(cpu_count()) as threads,
        ProgressBar("decoding", len(paths)) as bar,
    ):
        for first in range(0, len(paths), _CHUNK):  # what is decoded and not yet written stays small
            for number, (pixels, evaluated) in enumerate(threads.map(decode, paths[first : first + _CHUNK]), first):
                index[number, :3] = _write(file, pixels), *pixels.shape[:2]
                if evaluated is not None:
                    index[number, 3] = _write(file, evaluated)
                bar.advance()
            done = first + len(paths[first : first + _CHUNK])
            if file.tell() / done * (len(paths) - done) > shutil.disk_usage(path.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # before others' files find no room
            if time.monotonic() - told > _SILENCE:
                told = time.monotonic()
                print(f"decoded {done:,} of {len(paths):,} images", flush=True)
        size = _write(file, index) / 2**20
    print(f"decoded {len(paths):,} images: {size:,.0f} MiB, {time.monotonic() - start:.0f} s", flush=True)
    return bool((index[:, 3] >= 0).any())


def _write(file: BinaryIO, values: np.ndarray) -> int:
    start = file.tell()
    file.write(np.ascontiguousarray(values).data)
    return start


def _decode(
    path: str,
    channels: int,
    image_size: int,
    evaluate: Callable[[Image.Image], torch.Tensor],
    resize: Resize | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """An image's pixels of training, and those of evaluation where they are not made from the former."""
    image, evaluated = load_image(path, channels), None
    if resize is None and min(image.size) > reduced_side(image_size):
        evaluated = evaluate(image).numpy()
    return training_pixels(image, image_size, resize), evaluated


def training_pixels(image: Image.Image, image_size: int, resize: Resize | None) -> np.ndarray:
    """The pixels that training begins with, uint8 of shape (height, width, channels): resized, or reduced if larger."""
    short_side = reduced_side(image_size)
    if resize:
        image = resize(image)
    elif min(image.size) > short_side:
        scale = short_side / min(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, -1)
