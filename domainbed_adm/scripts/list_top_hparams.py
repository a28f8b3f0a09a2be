"""``list_top_hparams``: the hparams that each model selection method ranks highest, with DomainBed's flags."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.analysis.runs import run_numbers
from domainbed_adm.cli import run
from domainbed_adm.datasets.environment_names import number_or_name
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.top_hparams import Ranking, rankings
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.sweeping.search import in_words, read_search
from domainbed_adm.system.console import Parser, show
from domainbed_adm.system.disk import replacing

EXAMPLES = """\
  domainbed-adm list_top_hparams --input_dir results/pacs --dataset PACS --algorithm SAM --test_env 0
  domainbed-adm list_top_hparams --input_dir results/search --out top.json
  domainbed-adm train --dataset RotatedDigits --algorithm SAM --test_envs 0 --hparams_from top.json --output_dir best
  domainbed-adm sweep launch --datasets RotatedDigits --algorithms SAM --test_envs 0 --n_hparams 1 --n_trials 3 \\
      --hparams_from top.json --output_dir results/best --skip_confirmation"""


def build_parser() -> Parser:
    """The flags; DomainBed's, none of which has to be given."""
    about = (
        "Print the hparams of a sweep or a search that each model selection method ranks highest. In a sweep each\n"
        "test environment and trial seed has a ranking of its own; in a search trials are ranked by their means."
    )
    parser = Parser("domainbed-adm list_top_hparams", description=about, examples=EXAMPLES)
    add = parser.add_argument
    add("--input_dir", required=True, type=Path, help="output_dir of a sweep, DomainBed's or ours, or of a search")
    add("--dataset", metavar="NAME", help="only this; default all")
    add("--algorithm", metavar="NAME", help="only this; default all")
    about = "only runs that hold out this environment, a number or a name; default all"
    add("--test_env", type=number_or_name, metavar="ENV", help=about)
    add("--trial_seed", type=int, metavar="N", help="only this; default all")
    add("--selection", choices=SELECTION_METHODS, help="only this model selection method; default all")
    add("--n_top", type=int, default=3, metavar="N", help="how many of each ranking (default 3)")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the best of each ranking as JSON, for --hparams_from of train and sweep launch; by --selection, "
        "else by training-domain",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Print them.

    Raises:
        UserError: a flag is wrong, or nothing can be ranked.
    """
    args = build_parser().parse_args(argv)
    if args.n_top < 1:
        raise UserError(f"--n_top must be at least 1, not {args.n_top}")
    runs = load_runs(args.input_dir)
    for name in ("dataset", "algorithm", "trial_seed"):
        given = getattr(args, name)
        there = sorted({getattr(run, name) for run in runs})
        if given is not None and given not in there:
            raise UserError(f"no run of --{name} {given} in {args.input_dir}; there are {', '.join(map(str, there))}")
        runs[:] = [run for run in runs if given in {None, getattr(run, name)}]
    together = read_search(args.input_dir) is not None
    keys = [args.selection] if args.selection else list(SELECTION_METHODS)
    made = {key: rankings(runs, SELECTION_METHODS[key], together) for key in keys}
    if args.test_env is not None:
        wanted = {run.dataset: run_numbers([args.test_env], run)[0] for run in runs}
        made = {key: [one for one in own if wanted[one.dataset] in one.test_envs] for key, own in made.items()}
    if not any(made.values()):
        raise UserError(
            f"nothing to rank in {args.input_dir}: no run has what {' or '.join(keys)} needs of its records"
        )
    for ranking in (ranking for own in made.values() for ranking in own):
        _show(ranking, args.n_top)
    if args.out:
        chosen = made[args.selection or "training-domain"]
        with replacing(args.out) as file:
            file.write(json.dumps({"top_hparams": [one.top() for one in chosen]}, indent=1).encode() + b"\n")
        print(f"{args.out}: the hparams of {len(chosen)} {'ranking' if len(chosen) == 1 else 'rankings'}")
    return 0


def _show(ranking: Ranking, n_top: int) -> None:
    names = ranking.varied() or list(ranking.candidates[0].hparams)
    rows = [
        [
            str(one.hparams_seed),
            f"{100 * one.val_acc:.2f}",
            f"{100 * one.test_acc:.2f}",
            in_words({name: one.hparams.get(name) for name in names}),
            " ".join(run.folder.name for run in one.runs),
        ]
        for one in ranking.candidates[:n_top]
    ]
    columns = ("hparams_seed", "validation %", "test %", "hparams", "folders")
    show(columns, rows, prose=("hparams", "folders"), title=ranking.title, width=160)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
