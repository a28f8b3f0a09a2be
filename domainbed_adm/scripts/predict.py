"""Classify images with the model of a finished run."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from domainbed_adm.cli import run
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
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    args = build_parser().parse_args(argv)
    from domainbed_adm.training.model_file import load_model, restore_algorithm
    from domainbed_adm.training.prediction import find_images, predictions

    contents = load_model(args.model)
    algorithm = restore_algorithm(contents)
    images = find_images(args.images)
    with ProgressBar("predict", len(images)) as bar, _opened(args.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class", "probability"])
        for row in predictions(algorithm, contents, images, BATCH):
            writer.writerow(row)
            bar.advance()
    return 0


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """The standard output, a file that is there once it is whole, or a pipe."""
    if path is None:
        yield sys.stdout
        return
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.flush()
        text.detach()


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
