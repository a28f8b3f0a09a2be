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
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import add_flags
from domainbed_adm.system.console import Parser, ProgressBar
from domainbed_adm.system.disk import replacing

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
    parser.add_argument("--model", required=True, type=Path, help="model.pkl of a finished run, or the run's folder")
    parser.add_argument("--images", required=True, type=Path, help="folder of images, searched through")
    parser.add_argument("--output", type=Path, help="CSV file or pipe to write (default: the standard output)")
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: a GPU where there is one)")
    add_flags(parser, ("domainbed",))
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    args = build_parser().parse_args(argv)
    from domainbed_adm.trained_network import BATCH, load_model

    network = load_model(args.model, args.device, args.domainbed)
    images = _find_images(args.images)
    with ProgressBar("predict", len(images)) as bar, _opened(args.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class", "probability"])
        for start in range(0, len(images), BATCH):
            paths = images[start : start + BATCH]
            classes, probabilities = network.predict(paths)
            for path, name, probability in zip(paths, classes, probabilities.max(1).values.tolist(), strict=True):
                writer.writerow([str(path), name, f"{probability:.4f}"])
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


@contextmanager
def _opened(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield sys.stdout
    else:
        with replacing(path) as file:
            yield codecs.getwriter("utf-8")(file, "backslashreplace")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
