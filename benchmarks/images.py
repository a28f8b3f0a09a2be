"""A folder of images to measure with: textures as rough as a photograph's, which decode as slowly, on each a disc
of waves. Classes are numbers of waves, domains are colours and contrasts; the same arguments make the same files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.process import cpu_count
from domainbed_adm.system.seeding import seed_hash

#: PACS's numbers of images.
PACS = {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}
CLASSES = 7
_QUALITY = 95


def make_images(root: Path, domains: Mapping[str, int], side: int, name: str = "PACS") -> Path:
    """Make ``<folder>/<name>/<domain>/<class>/<number>.jpg``, unless it is there; returns ``folder``, below ``root``.

    ``domains`` has the number of images of each; they are ``side`` px wide and high.
    """
    folder = root / f"{name}-{'-'.join(map(str, domains.values()))}-{side}px"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for domain in domains:
        for label in range(CLASSES):
            (unfinished / name / domain / f"waves{label}").mkdir(parents=True)

    def save(task: tuple[int, str, int]) -> None:
        number, domain, i = task
        path = unfinished / name / domain / f"waves{i % CLASSES}" / f"{i:05}.jpg"
        Image.fromarray(draw(i % CLASSES, number, side, seed_hash(domain, i))).save(path, quality=_QUALITY)

    tasks = [(number, domain, i) for number, (domain, count) in enumerate(domains.items()) for i in range(count)]
    print(f"making {len(tasks):,} images in {folder}", flush=True)
    with ProgressBar("images", len(tasks)) as bar, ThreadPoolExecutor(cpu_count()) as threads:
        for _ in threads.map(save, tasks):
            bar.advance()
    unfinished.rename(folder)
    return folder


def draw(label: int, domain: int, side: int, seed: int) -> np.ndarray:
    """One image, uint8 of shape (side, side, 3): a disc of ``label`` + 1 waves across, turned and placed at random."""
    random, style = np.random.default_rng(seed), np.random.default_rng(domain)
    colours, contrasts = style.uniform(60, 195, (2, 3)), style.uniform(0.4, 1.0, 2)
    ground, disc = (
        colour + contrast * _texture(side, random) for colour, contrast in zip(colours, contrasts, strict=True)
    )
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] - random.uniform(-0.3, 0.3, (2, 1, 1))
    turn, phase = random.uniform(0, 2 * np.pi, 2)
    across = rows * np.cos(turn) + columns * np.sin(turn)
    disc += 50 * contrasts[1] * np.cos(np.pi * (label + 1) * across + phase)[..., None]
    inside = np.hypot(rows, columns) < random.uniform(0.6, 0.9)
    return np.where(inside[..., None], disc, ground).clip(0, 255).astype(np.uint8)


def _texture(side: int, random: np.random.Generator) -> np.ndarray:
    """Noise of falling strength at ever finer scales, as in photographs; mean 0, of shape (side, side, 3)."""
    texture = np.zeros((side, side, 3), dtype=np.float32)
    cells = 2
    while cells <= side:
        grid = random.normal(0, 1, (cells, cells, 1)) + random.normal(0, 0.4, (cells, cells, 3))
        coarse = Image.fromarray((128 + 32 * grid).clip(0, 255).astype(np.uint8))
        texture += (np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) - 128) / cells**0.5
        cells *= 2
    return texture
