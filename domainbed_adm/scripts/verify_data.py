"""Look at every file of a dataset folder: what is broken, empty, duplicate, misplaced or missing."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainbed_adm.cli import run
from domainbed_adm.datasets.cards import DatasetCard, get_card
from domainbed_adm.datasets.classification.cifar import CIFAR
from domainbed_adm.datasets.classification.fine_grained import list_images
from domainbed_adm.datasets.classification.verification import Counts, verify_arrays
from domainbed_adm.datasets.images import load_image
from domainbed_adm.datasets.layout import Inventory, Problem, dataset_root, take_inventory
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import Parser, ProgressBar, printable, show
from domainbed_adm.system.process import cpu_count

EXAMPLES = """\
  domainbed-adm verify_data --dataset PACS VLCS --data_dir data
  domainbed-adm verify_data --dataset MyFolder --data_dir data --json"""


def build_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "domainbed-adm verify_data",
        description="Read every image of a dataset folder and count them by domain and class, against the published "
        "sizes where there are some.\nExit code 0: nothing is wrong; 1: something is, one line each; 2: bad flags.",
        examples=EXAMPLES,
    )
    parser.add_argument("--dataset", nargs="+", required=True, help="names of datasets in data_dir, your own included")
    parser.add_argument("--data_dir", required=True, help="the folder that holds them")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="threads that decode (default: one a CPU)")
    parser.add_argument("--json", action="store_true", help="a JSON list, one report a dataset")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error("--workers must be 1 or more")
    cards = [folder_dataset(name) for name in dict.fromkeys(args.dataset)]
    roots = [dataset_root(card, args.data_dir) for card in cards]
    reports = [verify(card, root, args.workers) for card, root in zip(cards, roots, strict=True)]
    if args.json:
        print(json.dumps([report.as_json() for report in reports], indent=1))
    else:
        for report in reports:
            print_report(report)
    return int(any(report.problems for report in reports))


def folder_dataset(name: str) -> DatasetCard:
    """The card of a dataset that is a folder of images, or of arrays of them.

    Raises:
        UserError: the dataset is another.
    """
    card = get_card(name)
    if card.directory is None:
        raise UserError(f"{name} is no folder of images: there is nothing to verify")
    return card


#: Of a dataset with more environments, images are counted by environment alone.
_MOST_COLUMNS = 12
#: How kinds of problems are counted, where it is not by their own word.
_COUNTED = {"broken": "unreadable", "duplicate": "duplicates", "count": "wrong counts"}


@dataclass(kw_only=True)
class Report(Inventory):
    """The state of one dataset folder: its inventory, with what is wrong inside the files, sorted by path."""

    card: DatasetCard
    root: Path
    in_arrays: Counts | None = None

    @property
    def counts(self) -> Counts:
        """Number of images by domain and class, broken files included; of arrays what ``in_arrays`` says."""
        if self.in_arrays is not None:
            return self.in_arrays
        return {domain: {name: len(paths) for name, paths in of.items()} for domain, of in self.images.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of images of each domain."""
        return tuple(sum(classes.values()) for classes in self.counts.values())

    @property
    def as_published(self) -> bool:
        """Whether these are the sizes of a published version."""
        return self.sizes in self.card.sizes

    def as_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "dataset": self.card.name,
            "root": str(self.root),
            "counts": self.counts,
            "published": [sum(sizes) for sizes in self.card.sizes],
            "problems": [{**asdict(problem), "path": str(problem.path)} for problem in self.problems],
            "notes": self.notes,
            "hidden": self.hidden,
            "images": sum(self.sizes),
        }

    def verdict(self) -> str:
        """What is wrong in a few words, such as "0 unreadable, 83 duplicates"; "nothing wrong" where nothing is."""
        kinds = Counter(_COUNTED.get(problem.kind, problem.kind) for problem in self.problems)
        if not kinds:
            return "nothing wrong"
        always = {kind: kinds.pop(kind, 0) for kind in ("unreadable", "duplicates")}
        return ", ".join(f"{number} {kind}" for kind, number in {**always, **kinds}.items())


def verify(card: DatasetCard, root: Path, workers: int = 1) -> Report:
    """Look at every file of the dataset folder ``root``; so many threads decode, several images at a time in Pillow.

    Raises:
        UserError: the folder holds no folder, or the lists of an official split cannot be read.
    """
    if card.name in CIFAR or card.train_of:
        counts, problems = verify_arrays(card, root, workers)
        return Report(problems=problems, card=card, root=root, in_arrays=counts)  # the readers know the sizes
    inventory = list_images(card.name, root) if card.official_split else take_inventory(root)
    if not inventory.images:
        raise UserError(f"dataset folder {root} holds no domain folder (<domain>/<class>/<image>)")
    report = Report(**vars(inventory), card=card, root=root)
    paths = [path for classes in inventory.images.values() for images in classes.values() for path in images]
    first: dict[str, Path] = {}
    duplicates: list[Problem] = []
    threads = ThreadPoolExecutor(workers)
    try:
        with warnings.catch_warnings(), ProgressBar(f"verify {card.name}", len(paths)) as bar:
            warnings.simplefilter("ignore")  # of what Pillow mends, such as EXIF data
            for path, (digest, problem) in zip(paths, threads.map(inspect_image, paths), strict=True):
                bar.advance()
                if problem is not None:
                    report.problems.append(problem)
                elif digest in first:
                    duplicates.append(Problem(path, "duplicate", f"same content as {first[digest]}"))
                else:
                    first[digest] = path
    finally:
        threads.shutdown(cancel_futures=True)
    _compare_counts(report)
    if report.as_published:  # as published, they are part of what all compare on
        report.notes += [f"{duplicate.path}: {duplicate.reason}, as published" for duplicate in duplicates]
    else:
        report.problems += duplicates
    report.problems.sort(key=lambda problem: str(problem.path))
    return report


def _compare_counts(report: Report) -> None:
    """Compare the number of domains with what training needs, and the sizes with the published ones."""
    sizes, card = report.sizes, report.card
    if card.environments is not None and len(sizes) != len(card.environments):
        named = f"{card.name} has {len(card.environments)}: {', '.join(card.environments)}"
        report.add(report.root, "count", f"{len(sizes)} domain folders, {named}")
    elif len(sizes) < 2:
        report.add(report.root, "count", f"{len(sizes)} domain folder, training needs two or more")
    if not card.sizes or report.as_published:
        return
    totals = " or ".join(f"{sum(published):,}" for published in card.sizes)
    report.add(report.root, "count", f"{sum(sizes):,} images, {totals} are published")
    nearest = min(card.sizes, key=lambda published: abs(sum(published) - sum(sizes)))
    if len(sizes) == len(nearest):
        for domain, size, expected in zip(report.counts, sizes, nearest, strict=True):
            if size != expected:
                report.add(report.root / domain, "count", f"{size:,} images, {expected:,} are published")


def inspect_image(path: Path) -> tuple[str, Problem | None]:
    """Read and decode one file: the SHA-256 of its content, and what is wrong with it or None."""
    try:
        content = path.read_bytes()
        if not content:
            return "", Problem(path, "empty", "file of 0 bytes: remove it or get it anew")
        load_image(path)
    except OSError as error:
        return "", Problem(path, "broken", f"cannot be read: {error.strerror}")
    except UserError as error:
        return "", Problem(path, "broken", str(error).replace(f" {path}:", ":"))
    return hashlib.sha256(content).hexdigest(), None


def print_report(report: Report) -> None:
    """Print the counts, then one line for each problem and note, then one that says how it stands."""
    counts = report.counts
    domains = list(counts)
    labels = sorted(set().union(*counts.values()))
    title = printable(f"{report.card.name}: {report.root}")
    if len(domains) > _MOST_COLUMNS:
        show(["environment", "images"], [[name, str(sum(counts[name].values()))] for name in domains], title=title)
    else:
        rows = [(label, [classes.get(label, 0) for classes in counts.values()]) for label in labels]
        cells = [[printable(label), *map(str, [*row, sum(row)])] for label, row in [*rows, ("all", list(report.sizes))]]
        show(["class", *map(printable, domains), "all"], cells, title=title)
    for problem in report.problems:
        print(printable(f"{problem.kind}: {problem.path}: {problem.reason}"))
    for note in report.notes:
        print(printable(f"note: {note}"))
    if report.hidden:
        print(f"note: {report.hidden} hidden files or folders ignored")
    images = f"{sum(report.sizes):,} images{', as published' if report.as_published else ''}"
    parts = f"{len(domains)} {'environments' if report.card.official_split else 'domains'}, {len(labels)} classes"
    print(f"{report.card.name}: {images}, {parts}: {report.verdict()}")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
