"""Fixtures that several tests share."""

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

# Tests run beside each other, a thread each: more would fight over the cores. Child processes read the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Under nohup, or behind a shell's &, a process ignores these, and so do its children: what ends a run must be heard.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

DOMAINS = ("dark", "light", "tinted")
CLASSES = ("circle", "square")


@pytest.fixture
def image_folder(tmp_path):
    """A data_dir with the folder dataset "Shapes": three domains, two classes, five small images each."""
    data_dir = tmp_path / "data"
    for d, domain in enumerate(DOMAINS):
        for k, name in enumerate(CLASSES):
            folder = data_dir / "Shapes" / domain / name
            folder.mkdir(parents=True)
            for i in range(5):
                Image.fromarray(_shape(k, d, i)).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    return data_dir


def _shape(kind, domain, i):
    y, x = np.mgrid[:40, :48] - 20
    x = x - 4
    inside = x**2 + y**2 < (8 + i) ** 2 if kind == 0 else np.maximum(abs(x), abs(y)) < 8 + i
    image = np.where(inside, 200, 40)[..., None] + np.array([0, 0, 0] if domain < 2 else [30, 0, -30])
    return np.clip(image if domain else image // 2, 0, 255).astype(np.uint8)
