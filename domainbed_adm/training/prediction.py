"""Predictions of a saved model for image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from domainbed_adm.datasets.base import to_inputs
from domainbed_adm.datasets.cards import Normalization
from domainbed_adm.datasets.folders import eval_transform
from domainbed_adm.datasets.images import load_image
from domainbed_adm.datasets.layout import EXTENSIONS, is_image_name
from domainbed_adm.errors import NonFiniteError, UserError


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden ones, such as macOS leaves, are none.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: --images is a folder of images")
    images = sorted(path for path in folder.rglob("*") if is_image_name(path.name) and path.is_file())
    if not images:
        raise UserError(f"no image below {folder}; looked for {' '.join(EXTENSIONS)}")
    return images


def predictions(
    algorithm: Any, contents: dict[str, Any], images: Sequence[Path], batch_size: int
) -> Iterator[tuple[str, str, str]]:
    """Classify images as evaluation during training saw them: same size, channels and normalisation.

    Args:
        algorithm: restored from ``contents``.
        contents: of ``model.pkl``.
        images: files to classify.
        batch_size: how many at a time.

    Yields:
        Path, class name and the class's probability with four decimals, in the order of ``images``.

    Raises:
        UserError: the model's inputs are not square images.
        NonFiniteError: its outputs are not finite.
    """
    channels, size, width = contents["model_input_shape"]
    if channels not in (1, 3):
        raise UserError(f"the model was trained on inputs of {channels} channels; an image file has 1 or 3")
    if size != width:
        raise UserError(f"the model was trained on inputs of {size} x {width} pixels; images are resized to a square")
    normalization = Normalization(*map(tuple, contents["normalization"])) if contents["normalization"] else None
    classes = contents["classes"] or [str(i) for i in range(contents["model_num_classes"])]
    transform = eval_transform(size, channels)
    for start in range(0, len(images), batch_size):
        paths = images[start : start + batch_size]
        pixels = torch.stack([transform(load_image(path, channels)) for path in paths])
        with torch.no_grad():
            logits = algorithm.predict(to_inputs(pixels, normalization))
        if not logits.isfinite().all():
            raise NonFiniteError(f"not finite: the model's output for {paths[0]} or an image after it")
        best = logits.softmax(1).max(1)
        for path, k, probability in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True):
            yield str(path), classes[k], f"{probability:.4f}"
