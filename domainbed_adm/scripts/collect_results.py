"""``collect_results``: a sweep's records as DomainBed's tables, as the paper's, as LaTeX, CSV or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard import Board, domainbed_sheets, paper_sheet
from domainbed_adm.leaderboard.comparison import compared, comparison_rows, comparison_sheet
from domainbed_adm.leaderboard.evaluations import evaluated_runs, evaluation_sheet
from domainbed_adm.leaderboard.layouts import as_csv, domainbed_text, latex_document, show_sheet, tidy_rows
from domainbed_adm.leaderboard.notes import data_lines, missing_line, missing_runs, shortened, trouble_lines
from domainbed_adm.leaderboard.published import published_sheet, unpublished_lines, with_published
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.sweeping.plan import planned_runs
from domainbed_adm.system.console import Parser, warn

EXAMPLES = """\
  domainbed-adm collect_results --input_dir results/smoke
  domainbed-adm collect_results --input_dir results/smoke --layout paper --selection training-domain
  domainbed-adm collect_results --input_dir results/smoke --csv > results.csv
  domainbed-adm collect_results --input_dir results/pacs --compare SAM SAM_SSPL_ADM SAM_SSPL_GDM
  domainbed-adm collect_results --input_dir results/pacs --compare SAM SAM_SSPL_ADM --csv > comparison.csv
  domainbed-adm collect_results --input_dir results/pacs --layout paper --with-published"""


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
        help="domainbed: a table per dataset; paper: optimizer x curriculum x difficulty (text and LaTeX), and what "
        "`evaluate` measured: corruption error, accuracy under attack, NLL, ECE",
    )
    parser.add_argument("--missing", action="store_true", help="list every run that is missing or unfinished (stderr)")
    parser.add_argument("--selection", choices=SELECTION_METHODS, help="only this model selection method; default all")
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="ALGORITHM",
        help="compare each other algorithm with the first, in pairs of the same trial seed and test environment: mean "
        "difference, 95%% bootstrap interval, Wilcoxon's test; a table after the others, or the rows of --csv, --json",
    )
    parser.add_argument(
        "--with-published",
        "--with_published",
        action="store_true",
        help="the published numbers beside ours: a table after the others, or columns and rows of --csv, --json",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the tables; what is missing goes to the standard error stream.

    Raises:
        UserError: flags do not go together, there is no record, or nothing to compare.
    """
    args = build_parser().parse_args(argv)
    for_programs = args.csv or args.json
    if args.layout == "paper" and for_programs:
        raise UserError("--layout paper goes with text and --latex; --csv and --json have one row for each number")
    if args.compare and args.with_published and for_programs:
        raise UserError("--compare and --with-published make different rows: give --csv or --json to one at a time")
    selections = [SELECTION_METHODS[args.selection]] if args.selection else list(SELECTION_METHODS.values())
    runs = load_runs(args.input_dir)
    board = Board(runs, selections)
    comparisons = compared(board, selections, args.compare) if args.compare else {}
    if for_programs:
        rows = [row for selection, made in comparisons.items() for row in comparison_rows(board, selection, made)]
        rows = rows or tidy_rows(board, selections)
        rows = with_published(rows, board, selections) if args.with_published else rows
        sys.stdout.write(as_csv(rows) if args.csv else json.dumps(rows, indent=1) + "\n")
    else:
        if args.layout == "paper":
            sheets = [paper_sheet(board, selection) for selection in selections]
            sheets += map(evaluation_sheet, evaluated_runs(board))
        else:
            sheets = [sheet for selection in selections for sheet in domainbed_sheets(board, selection)]
        more = [comparison_sheet(board, selection, made) for selection, made in comparisons.items()]
        if args.with_published:
            more += filter(None, (published_sheet(board, selection) for selection in selections))
        if args.latex:
            sys.stdout.write(latex_document([*sheets, *more], board.total))
        else:
            if args.layout == "domainbed":
                sys.stdout.write(domainbed_text(sheets, board.total))
                sheets = []
            for sheet in (*sheets, *more):
                show_sheet(sheet)
    if args.with_published:
        for line in unpublished_lines(board):
            warn(line)
    missing = filter(None, (missing_line(board, selection) for selection in selections))
    for line in (*data_lines(runs), *missing, *shortened(trouble_lines(runs))):
        warn(line)
    if args.missing:
        lines = missing_runs(runs, selections, planned_runs(Path(args.input_dir)))
        print("\n".join(lines) or "nothing is missing", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
