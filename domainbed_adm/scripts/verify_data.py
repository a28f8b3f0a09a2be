"""Look at every file of a dataset folder: what is broken, empty, duplicate, misplaced or missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from domainbed_adm.cli import run
from domainbed_adm.datasets import layout
from domainbed_adm.datasets.cards import FOLDERS, DatasetCard, get_card
from domainbed_adm.datasets.verification import Report, verify
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import Parser, printable
from domainbed_adm.system.process import cpu_count
from domainbed_adm.system.tables import show

EXAMPLES = """\
  domainbed-adm verify_data --dataset PACS VLCS --data_dir data
  domainbed-adm verify_data --dataset MyFolder --data_dir data --json"""


def build_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "domainbed-adm verify_data",
        description="Decode every image of a dataset folder and count them by domain and class, against the published "
        "sizes where there are some.\nExit code 0: nothing is wrong; 1: something is, one line each; 2: bad flags.",
        examples=EXAMPLES,
    )
    parser.add_argument("--dataset", nargs="+", required=True, help="names of folder datasets, your own included")
    parser.add_argument("--data_dir", required=True, help="the folder that holds them")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="threads that decode (default: one a CPU)")
    parser.add_argument("--json", action="store_true", help="a JSON list, one report a dataset")
    return parser


def folder_dataset(name: str) -> DatasetCard:
    """The card of a dataset that is a folder of images.

    Raises:
        UserError: the dataset is another.
    """
    card = get_card(name)
    if card.path != FOLDERS:
        raise UserError(f"{name} is no folder of images: there is nothing to verify")
    return card


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error("--workers must be 1 or more")
    cards = [folder_dataset(name) for name in dict.fromkeys(args.dataset)]
    roots = [layout.dataset_root(card, args.data_dir) for card in cards]
    reports = [verify(card, root, args.workers) for card, root in zip(cards, roots, strict=True)]
    if args.json:
        print(json.dumps([report.as_json() for report in reports], indent=1))
    else:
        for report in reports:
            print_report(report)
    return int(any(report.problems for report in reports))


def print_report(report: Report) -> None:
    """Print the counts, then one line for each problem and note, then one that says how it stands."""
    domains = list(report.counts)
    labels = sorted(set().union(*report.counts.values()))
    rows = [(label, [classes.get(label, 0) for classes in report.counts.values()]) for label in labels]
    cells = [[printable(label), *map(str, [*row, sum(row)])] for label, row in [*rows, ("all", list(report.sizes))]]
    show(["class", *map(printable, domains), "all"], cells, title=printable(f"{report.card.name}: {report.root}"))
    for problem in report.problems:
        print(printable(f"{problem.kind}: {problem.path}: {problem.reason}"))
    for note in report.notes:
        print(printable(f"note: {note}"))
    if report.hidden:
        print(f"note: {report.hidden} hidden files or folders ignored")
    images = f"{sum(report.sizes):,} images{', as published' if report.as_published else ''}"
    print(f"{report.card.name}: {images}, {len(domains)} domains, {len(labels)} classes: {report.verdict()}")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
