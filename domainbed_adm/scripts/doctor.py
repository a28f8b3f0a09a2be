"""``doctor``: what is installed and found here, as plain text or JSON, for bug reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.doctor import examine
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import Parser, printable

EXAMPLES = """\
  domainbed-adm doctor
  domainbed-adm doctor --data_dir ~/data --output_dir /scratch/sweep
  domainbed-adm doctor --json > doctor.json

Nothing is changed, and nothing is sent. The folders' and devices' names are all that it tells of you."""


def build_parser() -> Parser:
    """The folders to look at."""
    about = "Versions, devices, CPUs, caches, disk, file locks, clusters and DomainBed as they are found here, for\n"
    about += "bug reports; what would hold up a run is marked PROBLEM, with what to do."
    parser = Parser("domainbed-adm doctor", description=about, examples=EXAMPLES)
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="folder of the datasets: its caches and disk")
    parser.add_argument(
        "--output_dir", type=Path, default=Path(), metavar="DIR", help="folder of runs: its disk and locks (default .)"
    )
    parser.add_argument("--domainbed", metavar="DIR", help="folder of a DomainBed checkout (default: DOMAINBED_DIR)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for each look (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON: found, and problems")
    return parser


def main(argv: Sequence[str]) -> int:
    """Look, and print; returns the exit code, 0 with problems too."""
    args = build_parser().parse_args(argv)
    found, problems = examine(args.output_dir, args.data_dir, args.domainbed, args.timeout)
    if args.json:
        print(json.dumps({"found": found, "problems": problems}, indent=1))
        return ExitCode.DONE
    for title, entries in found.items():
        print(f"{title}:")
        for name, value in entries.items():
            print(f"  {name}: {printable(value)}")
    for problem in problems:
        print(f"PROBLEM: {printable(problem)}")
    print(f"{len(problems)} problems" if problems else "no problems found")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
