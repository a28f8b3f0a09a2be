"""``collect_results``: a sweep's records as DomainBed's tables, as the paper's, as LaTeX, CSV or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard import Board, domainbed_sheets, paper_sheets
from domainbed_adm.leaderboard.comparison import compared, comparison_rows, comparison_sheet
from domainbed_adm.leaderboard.evaluations import (
    corruption_sheets,
    evaluated_runs,
    evaluation_rows,
    evaluation_sheet,
)
from domainbed_adm.leaderboard.hessian import Eigenvalues, eigenvalues, hessian_rows, hessian_sheet
from domainbed_adm.leaderboard.last_models import last_model_rows, last_model_sheets
from domainbed_adm.leaderboard.layouts import Sheet, domainbed_text, latex_document, show_sheet
from domainbed_adm.leaderboard.notes import data_lines, missing_line, missing_runs, shortened, trouble_lines
from domainbed_adm.leaderboard.published import (
    published_hessian,
    published_sheets,
    unpublished_lines,
    with_published,
)
from domainbed_adm.leaderboard.rows import as_csv, tidy_rows
from domainbed_adm.leaderboard.searches import search_lines
from domainbed_adm.model_selection import EVERY_SELECTION, SelectionMethod, default_selections
from domainbed_adm.recorded_run import Runs, is_official
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
    formats.add_argument(
        "--csv", action="store_true", help="one row per number: selection, dataset, algorithm, environment"
    )
    formats.add_argument("--json", action="store_true", help="the same rows as a JSON list")
    parser.add_argument(
        "--layout",
        choices=("domainbed", "paper"),
        default="domainbed",
        help="domainbed: a table per dataset; paper: optimizer x curriculum x difficulty (text and LaTeX), a table per "
        "task, classification by its last epoch; what `evaluate` measured (corruption error, accuracy under attack, "
        "NLL, ECE) and `analyze hessian` (largest eigenvalues)",
    )
    parser.add_argument("--missing", action="store_true", help="list every run that is missing or unfinished (stderr)")
    parser.add_argument(
        "--selection",
        choices=EVERY_SELECTION,
        help="only this model selection method; default: DomainBed's three, for sets of classification last-epoch and "
        "training-domain, and last-epoch alone in the paper's layout. Of runs with averaging swad each reports the "
        "result, the last record, as SWAD's authors do",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="ALGORITHM",
        help="compare each other algorithm with the first, in pairs of the same trial seed and test environment: mean "
        "difference, Student's 95%% interval, Wilcoxon's test; a table after the others, or the rows of --csv, --json",
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
    runs = load_runs(args.input_dir)
    board, selections = _board(runs, args.selection, args.layout == "paper")
    comparisons = compared(board, selections, args.compare) if args.compare else {}
    if for_programs:
        rows = [row for selection, made in comparisons.items() for row in comparison_rows(board, selection, made)]
        if not rows:
            found = eigenvalues(board)
            rows = tidy_rows(board, selections, args.selection is not None)
            rows += [*last_model_rows(board), *evaluation_rows(board), *hessian_rows(board, found)]
            rows = with_published(rows, board, selections, found) if args.with_published else rows
        sys.stdout.write(as_csv(rows) if args.csv else json.dumps(rows, indent=1) + "\n")
    else:
        if args.layout == "paper":
            found = eigenvalues(board)
            sheets = _paper(board, selections, found, args.selection is not None)
        else:
            found = None
            sheets = [sheet for selection in selections for sheet in domainbed_sheets(board, selection)]
        more = [comparison_sheet(board, selection, made) for selection, made in comparisons.items()]
        if args.with_published:
            more += _published(board, selections, found, args.selection is not None)
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
    for line in (*data_lines(runs), *search_lines(runs), *missing, *shortened(trouble_lines(runs))):
        warn(line)
    domainbeds = args.layout == "domainbed" and not (for_programs or args.latex)
    if domainbeds and len({run.trial_seed for run in runs}) == 1:
        warn("one trial: +/- 0.0, as DomainBed prints it, is no error; --n_trials of sweep launch makes more trials")
    if args.missing:
        lines = missing_runs(runs, selections, planned_runs(Path(args.input_dir)))
        print("\n".join(lines) or "nothing is missing", file=sys.stderr)
    return 0


def _board(runs: Runs, chosen: str | None, paper: bool) -> tuple[Board, list[SelectionMethod]]:
    """The board, under the selection method that was chosen or those that fit its datasets."""
    if chosen:
        return Board(runs, [EVERY_SELECTION[chosen]]), [EVERY_SELECTION[chosen]]
    datasets = {run.dataset for run in runs}
    selections = default_selections(datasets)
    board = Board(runs, selections)
    if all(map(is_official, datasets)):  # trained on all images there is nothing to select by but the last epoch
        selections = selections[:1] if paper else [one for one in selections if board.scores[one.key]] or selections
    return board, selections


def _paper(board: Board, selections: Sequence[SelectionMethod], found: Eigenvalues, everywhere: bool) -> list[Sheet]:
    sheets = [sheet for selection in selections for sheet in paper_sheets(board, selection, everywhere)]
    sheets += last_model_sheets(board)
    for evaluated in evaluated_runs(board):
        sheets += [evaluation_sheet(evaluated), *corruption_sheets(evaluated)]
    return [*sheets, *([hessian_sheet(board, found)] if found.trials else [])]


def _published(
    board: Board, selections: Sequence[SelectionMethod], found: Eigenvalues | None, everywhere: bool
) -> Iterator[Sheet]:
    for selection in selections:
        yield from published_sheets(board, selection, everywhere)
    if found and (sheet := published_hessian(board, found)):
        yield sheet


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
