"""``collect_results``: a sweep's records as DomainBed's tables, as the paper's, as LaTeX, CSV or JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from domainbed_adm.cli import run
from domainbed_adm.console import Parser, warn
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard import Board, domainbed_sheets, latex, paper_sheet, text, tidy
from domainbed_adm.leaderboard.facts import missing_line
from domainbed_adm.leaderboard.missing import missing_runs
from domainbed_adm.model_selection import SELECTION_METHODS, SelectionMethod
from domainbed_adm.records import load_records

EXAMPLES = """\
  domainbed-adm collect_results --input_dir results/smoke
  domainbed-adm collect_results --input_dir results/smoke --layout paper --selection training-domain
  domainbed-adm collect_results --input_dir results/smoke --csv > results.csv"""


def build_parser() -> Parser:
    """The flags."""
    about = "Print a sweep's records as DomainBed's tables, as the paper's, as LaTeX, CSV or JSON."
    parser = Parser("domainbed-adm collect_results", description=about, examples=EXAMPLES)
    parser.add_argument("--input_dir", required=True, help="output_dir of a sweep, DomainBed's or ours, or of one run")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--latex", action="store_true", help="a whole LaTeX document")
    formats.add_argument("--csv", action="store_true", help="one row per selection, dataset, algorithm, environment")
    formats.add_argument("--json", action="store_true", help="the same rows as a JSON list")
    parser.add_argument(
        "--layout",
        choices=("domainbed", "paper"),
        default="domainbed",
        help="domainbed: a table per dataset; paper: optimizer x curriculum x difficulty (text and LaTeX)",
    )
    parser.add_argument("--missing", action="store_true", help="list every run that is missing or unfinished (stderr)")
    parser.add_argument("--selection", choices=SELECTION_METHODS, help="only this model selection method; default all")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the tables; what is missing goes to the standard error stream.

    Raises:
        UserError: flags do not go together, or there is no record.
    """
    args = build_parser().parse_args(argv)
    if args.layout == "paper" and (args.csv or args.json):
        raise UserError("--layout paper goes with text and --latex; --csv and --json have one row for each number")
    selections = [SELECTION_METHODS[args.selection]] if args.selection else list(SELECTION_METHODS.values())
    records = load_records(args.input_dir)
    board = Board(records, selections)
    if args.csv or args.json:
        rows = tidy.tidy_rows(board, selections)
        sys.stdout.write(tidy.as_csv(rows) if args.csv else tidy.as_json(rows))
    elif args.layout == "paper":
        _paper(board, selections, args.latex)
    else:
        sheets = [sheet for selection in selections for sheet in domainbed_sheets(board, selection)]
        write = latex.document if args.latex else text.domainbed_text
        sys.stdout.write(write(sheets, board.total))
    for line in filter(None, (missing_line(board, selection) for selection in selections)):
        warn(line)
    if args.missing:
        lines = missing_runs(records, selections)
        print("\n".join(lines) or "nothing is missing", file=sys.stderr)
    return 0


def _paper(board: Board, selections: list[SelectionMethod], as_latex: bool) -> None:
    sheets = [paper_sheet(board, selection) for selection in selections]
    if as_latex:
        sys.stdout.write(latex.document(sheets, board.total))
        return
    for sheet in sheets:
        text.show_paper(sheet)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
