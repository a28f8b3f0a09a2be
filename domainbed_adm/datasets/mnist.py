"""RotatedMNIST and ColoredMNIST, of torchvision's MNIST: 70 000 images, downloaded where they are not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torchvision.datasets import MNIST

from domainbed_adm.datasets.digits import DigitsDataset
from domainbed_adm.datasets.layout import existing_data_dir
from domainbed_adm.errors import UserError, one_line

_FILES = [Path(archive).stem for archive, _ in MNIST.resources]


class MnistDigits(DigitsDataset):
    """RotatedMNIST and ColoredMNIST."""

    @classmethod
    def load(cls, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
        """Return MNIST's 60,000 training and 10,000 test images, in this order, and their digits.

        Raises:
            UserError: there is no data_dir; or the files are not there and cannot be downloaded, or not be read.
        """
        folder = existing_data_dir(cls.card, data_dir)
        try:
            if not all((folder / "MNIST" / "raw" / name).is_file() for name in _FILES):
                _download(folder)
            parts = [MNIST(str(folder), train=train) for train in (True, False)]
        except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
            raise UserError(
                f"{cls.card.name}: put the unpacked files {', '.join(_FILES)} of MNIST in {folder / 'MNIST' / 'raw'} "
                f"(they could not be downloaded or read: {one_line(error)})"
            ) from error
        images = torch.cat([part.data for part in parts]).float() / 255
        return images, torch.cat([part.targets for part in parts]).numpy().astype(np.int64)


def _download(folder: Path) -> None:
    """Put MNIST's files below ``folder`` once all are there, so that a download cut short leaves nothing behind.

    Archives that someone put in place are unpacked, not downloaded again.
    """
    raw = folder / "MNIST" / "raw"
    with TemporaryDirectory(dir=folder, prefix=".mnist-") as scratch:
        fresh = Path(scratch) / "MNIST" / "raw"
        fresh.mkdir(parents=True)
        for archive in raw.glob("*.gz"):
            shutil.copy(archive, fresh)
        MNIST(scratch, download=True)
        raw.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (fresh / name).replace(raw / name)
