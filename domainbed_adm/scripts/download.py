"""Fetch datasets from a table of mirrors, unpack them, and verify them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.datasets import layout
from domainbed_adm.datasets.downloading import download
from domainbed_adm.datasets.downloading.mirrors import ATTEMPTS, TABLE, load_sources
from domainbed_adm.errors import UserError, lookup
from domainbed_adm.scripts.verify_data import folder_dataset, print_report, verify
from domainbed_adm.system.console import Parser
from domainbed_adm.system.process import cpu_count

EXAMPLES = """\
  domainbed-adm download --dataset TerraIncognita --data_dir data
  domainbed-adm download --dataset PACS --data_dir data --archive ~/Downloads/PACS.zip
  domainbed-adm download --dataset Mine --data_dir data --mirrors mirrors.yaml"""


def build_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "domainbed-adm download",
        description="Fetch datasets, unpack them below data_dir as DomainBed lays them out, and verify them as "
        "verify_data does.\nStarted again it goes on where it broke. A dataset that is there is only verified. Where a "
        "site refuses, fetch the archive\nwith a browser and give it as --archive.",
        examples=EXAMPLES + f"\n\nThe table of mirrors, and how to write one of your own: {TABLE}",
    )
    parser.add_argument("--dataset", nargs="+", required=True, help="names in the table of mirrors")
    parser.add_argument("--data_dir", required=True, help="the folder to put them in; made where it is not there")
    parser.add_argument("--mirrors", nargs="+", default=[], type=Path, help="YAML files that extend the table")
    parser.add_argument("--archive", nargs="+", default=[], type=Path, help="archives you have, of one dataset")
    parser.add_argument(
        "--retries", type=int, default=ATTEMPTS, help="attempts for each address (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=cpu_count(), help="threads that verify (default: one a CPU)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code, verify_data's.

    Raises:
        UserError: a dataset is not in the table, cannot be fetched, or the folder cannot be made.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    names = list(dict.fromkeys(args.dataset))
    if min(args.retries, args.workers) < 1:
        parser.error("--retries and --workers must be 1 or more")
    if args.archive and len(names) > 1:
        parser.error("--archive goes with one --dataset")
    table = load_sources(args.mirrors)
    sources = {name: lookup(table, name, "dataset in the table of mirrors") for name in names}
    data_dir = layout.expanded(args.data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data_dir {data_dir} cannot be made: {error.strerror}") from error
    reports = []
    for name, source in sources.items():
        card = folder_dataset(name)
        target = data_dir / (card.directory or card.name)
        if target.is_dir() and any(target.iterdir()):
            print(f"{name}: {target} is there, nothing fetched; remove it to fetch it anew")
        elif isinstance(source, str):
            raise UserError(f"{name} cannot be fetched: {source}")
        else:
            archives = [layout.expanded(path) for path in args.archive]
            print(f"{name}: {'unpacking' if archives else 'fetching'} into {target}", flush=True)
            download(source, target, archives=archives, attempts=args.retries, tell=partial(print, flush=True))
        reports.append(verify(card, target, args.workers))
        print_report(reports[-1])
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
