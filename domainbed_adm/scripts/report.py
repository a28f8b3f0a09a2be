"""``report``: a sweep as one HTML file that can be mailed around."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.model_selection import EVERY_SELECTION, default_selections
from domainbed_adm.system import figures
from domainbed_adm.system.console import Parser
from domainbed_adm.system.disk import replacing

EXAMPLES = """\
  domainbed-adm report results/smoke
  domainbed-adm report results/smoke --selection training-domain --title "Digits, five methods" --output digits.html
  domainbed-adm analyze hessian results/smoke
  domainbed-adm analyze landscape results/smoke --algorithms ERM SAM --test_envs 0 --trial_seed 0
  domainbed-adm report results/smoke"""


def build_parser() -> Parser:
    """The flags."""
    about = (
        "Write a sweep's leaderboards, accuracies, learning curves, costs, comparisons, failures and settings as one\n"
        "HTML file that needs no network. It may be written while the sweep runs. It also shows what lies in the\n"
        "runs: flatness and landscapes that `analyze hessian` and `analyze landscape` left of model.pkl, and the\n"
        "difficulty of the samples that `train --trace_difficulty` traced. It measures nothing itself."
    )
    parser = Parser("domainbed-adm report", description=about, examples=EXAMPLES)
    parser.add_argument("sweep_dir", type=Path, help="output_dir of a sweep, DomainBed's or ours, or of one run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in SWEEP_DIR")
    parser.add_argument(
        "--selection", choices=EVERY_SELECTION, help="only this model selection method; default all that apply"
    )
    parser.add_argument("--title", help="heading of the page; default: the folder's name")
    return parser


def main(argv: Sequence[str]) -> int:
    """Write the page and print its path.

    Raises:
        UserError: there is no record, figures cannot be drawn, or the file cannot be written.
    """
    args = build_parser().parse_args(argv)
    figures.check_available()
    from domainbed_adm.report import page, read_sweep

    sweep = read_sweep(args.sweep_dir)
    fitting = default_selections({run.dataset for run in sweep.recorded})
    selections = [EVERY_SELECTION[args.selection]] if args.selection else fitting
    title = args.title or f"Sweep {args.sweep_dir.resolve().name}"
    command = shlex.join(["domainbed-adm", "report", *argv])
    html = page(sweep, selections, title, command, datetime.now(timezone.utc))
    output = args.output or args.sweep_dir / "report.html"
    with replacing(output) as file:
        file.write(html.encode(errors="backslashreplace"))
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
