"""Classify images with the model of a finished run."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domainbed_adm.cli import run
from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_args import add_flags
from domainbed_adm.system.console import Parser, ProgressBar
from domainbed_adm.system.disk import replacing

BATCH = 64

EXAMPLES = """\
  domainbed-adm predict --model results/one/model.pkl --images ~/new_photos
  domainbed-adm predict --model results/one/model.pkl --images ~/new_photos --output predictions.csv"""


def build_parser() -> Parser:
    """The flags of predict."""
    parser = Parser(
        "domainbed-adm predict",
        description="Classify every image below a folder; prints CSV: path, predicted class, its probability.",
        examples=EXAMPLES,
    )
    parser.add_argument("--model", required=True, type=Path, help="model.pkl of a finished run")
    parser.add_argument("--images", required=True, type=Path, help="folder of images, searched through")
    parser.add_argument("--output", type=Path, help="CSV file or pipe to write (default: the standard output)")
    add_flags(parser, ("domainbed",))
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.domainbed:
        load_checkout(args.domainbed)
    from domainbed_adm.training.model_file import load_model, restore_algorithm

    contents = load_model(args.model)
    algorithm = restore_algorithm(contents)
    images = _find_images(args.images)
    with ProgressBar("predict", len(images)) as bar, _opened(args.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class", "probability"])
        for row in _predictions(algorithm, contents, images):
            writer.writerow(row)
            bar.advance()
    return 0


def _find_images(folder: Path) -> list[Path]:
    from domainbed_adm.datasets.layout import EXTENSIONS, is_image_name

    if not folder.is_dir():
        raise UserError(f"no folder {folder}: --images is a folder of images")
    images = sorted(path for path in folder.rglob("*") if is_image_name(path.name) and path.is_file())
    if not images:
        raise UserError(f"no image below {folder}; looked for {' '.join(EXTENSIONS)}")
    return images


def _predictions(algorithm: Any, contents: dict[str, Any], images: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    # as evaluation during training saw images: same size, crop, channels and normalisation
    import torch

    from domainbed_adm.datasets.base import to_inputs
    from domainbed_adm.datasets.cards import Normalization
    from domainbed_adm.datasets.images import load_image
    from domainbed_adm.datasets.transforms import eval_transform, first_resize

    channels, size, width = contents["model_input_shape"]
    if channels not in (1, 3):
        raise UserError(f"the model was trained on inputs of {channels} channels; an image file has 1 or 3")
    if size != width:
        raise UserError(f"the model was trained on inputs of {size} x {width} pixels; images are resized to a square")
    normalization = Normalization(*map(tuple, contents["normalization"])) if contents["normalization"] else None
    classes = contents["classes"] or [str(i) for i in range(contents["model_num_classes"])]
    transform = eval_transform(size, channels, first_resize(contents["model_hparams"] | {"image_size": size}))
    for start in range(0, len(images), BATCH):
        paths = images[start : start + BATCH]
        pixels = torch.stack([transform(load_image(path, channels)) for path in paths])
        with torch.no_grad():
            logits = algorithm.predict(to_inputs(pixels, normalization))
        if not logits.isfinite().all():
            raise NonFiniteError(f"not finite: the model's output for {paths[0]} or an image after it")
        best = logits.softmax(1).max(1)
        for path, k, probability in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True):
            yield str(path), classes[k], f"{probability:.4f}"


@contextmanager
def _opened(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield sys.stdout
    else:
        with replacing(path) as file:
            yield codecs.getwriter("utf-8")(file, "backslashreplace")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
