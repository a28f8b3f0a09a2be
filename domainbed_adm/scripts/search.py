"""``search``: search the hyperparameters of one method on one dataset, on any number of machines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed_adm import hparams_registry
from domainbed_adm.cli import run
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.environment_names import number_or_name, numbers_of
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import EVERY_JOB, FLAGS, add_flags, check_flags, words
from domainbed_adm.run_files import PLAN, ExitCode
from domainbed_adm.sweeping import search_space, study
from domainbed_adm.sweeping.jobs import Sweep, check_sweep
from domainbed_adm.sweeping.search import (
    SAMPLERS,
    Search,
    check_same,
    fixed_hparams,
    in_words,
    read_search,
    write_search,
)
from domainbed_adm.sweeping.searcher import Searcher
from domainbed_adm.sweeping.study import Study
from domainbed_adm.system.console import Parser, show, warn
from domainbed_adm.system.disk import run_lock

EXAMPLES = """\
  domainbed-adm search --dataset RotatedDigits --algorithm SAM --test_envs 0 --n_trials 40 --steps 300 \\
      --output_dir results/search
  domainbed-adm search --dataset PACS --data_dir data --algorithm SAM_SSPL_ADM --search lr rho --hparams \\
      '{"resnet18": true}' --output_dir results/pacs
  domainbed-adm search --dataset RotatedDigits --algorithm SAM --sampler grid --steps 300 --search_space \\
      '{"rho": {"low": 0.01, "high": 0.2, "log": true}, "optimizer": ["adam", "sgd"]}' --output_dir results/grid
  domainbed-adm list_top_hparams --input_dir results/search --out top.json
  domainbed-adm train --dataset RotatedDigits --algorithm SAM --hparams_from top.json --output_dir results/best"""

_ABOUT = """\
Search the hyperparameters of one method on one dataset by training-domain validation accuracy, the one by which
collect_results selects: the best checkpoint's mean accuracy on the out-splits of the source environments. The test
environment of a run has no part in it. Each trial is an ordinary job folder for each test environment and trial seed.

The same command again goes on. Several at once, also on several machines, share one study: give each the same flags
(and its own GPU, by CUDA_VISIBLE_DEVICES); a trial whose searcher was killed is taken up again by another."""
_ABOUT_ENVS = (
    "environments to hold out, each alone; a trial's objective is the mean over them (default 0). With several, one "
    "choice of hparams serves all, and each environment is a source of the others' runs: for numbers by DomainBed's "
    "protocol search for each test environment on its own"
)
_ABOUT_PRUNE = (
    "stop a trial whose best checkpoint so far is below the median of the others' at the same checkpoint, after five "
    "trials. Such runs are shorter than the protocol's, and tables say so"
)
_ABOUT_SPACE = (
    'a JSON object, or a file of it: {"NAME": {"low": a, "high": b, "log": true}} or {"NAME": [values]}; by default '
    "the ranges of random search (domainbed-adm list hparams --algorithm NAME)"
)
_ABOUT_SAMPLER = (
    "tpe: tree-structured Parzen estimators after 10 random trials; random; qmc: a scrambled Sobol sequence; grid: "
    "all combinations (default tpe)"
)
_SHARED = (
    "steps",
    "epochs",
    "match_passes",
    "holdout_fraction",
    "checkpoint_freq",
    "precision",
    "compile",
    "augment_on",
    "data_dir",
)


def build_parser() -> Parser:
    """The flags."""
    parser = Parser("domainbed-adm search", description=_ABOUT, examples=EXAMPLES)
    add, number = parser.add_argument, {"type": int, "metavar": "N"}
    add("--dataset", required=True, metavar="NAME", help="a known name, or a folder in data_dir")
    add("--algorithm", required=True, metavar="NAME", help="see domainbed-adm list algorithms")
    add("--output_dir", required=True, type=expanded, help="folder of the study; each job gets a folder in it")
    add("--n_trials", default=20, help="trials in all, those there already included (default 20)", **number)  # type: ignore[arg-type]
    add("--sampler", choices=SAMPLERS, default="tpe", help=_ABOUT_SAMPLER)
    add("--grid_points", default=3, help="values of a range, for grid (default 3)", **number)  # type: ignore[arg-type]
    add("--seed", type=int, default=0, help="of the sampler (default 0)")
    add("--search", nargs="+", default=[], metavar="HPARAM", help="what to search; default: all with a range")
    add("--search_space", metavar="JSON", help=_ABOUT_SPACE)
    add("--hparams", metavar="JSON", help="fix these; others that are not searched keep their defaults")
    add("--test_envs", type=number_or_name, nargs="+", metavar="ENV", help=_ABOUT_ENVS)
    add("--n_trial_seeds", default=1, help="train each trial with trial seeds below this (default 1)", **number)  # type: ignore[arg-type]
    add("--prune", action="store_true", help=_ABOUT_PRUNE)
    add("--jobs", default=1, help="trials at a time (default 1)", **number)  # type: ignore[arg-type]
    add("--retries", default=1, help="how often to try a failed job again (default 1)", **number)  # type: ignore[arg-type]
    add("--reuse_processes", action="store_true", help="import torch once for each process at a time")
    add("--no_wait", action="store_true", help="end where no trial is left to take, though others still run some")
    add("--dry_run", action="store_true", help="print what would be searched, and do nothing")
    shared = parser.add_argument_group("flags of train that every job is given")
    add_flags(shared, _SHARED)
    add_flags(shared, [name for name in EVERY_JOB if name not in _SHARED])
    return parser


def main(argv: Sequence[str]) -> int:
    """Search; exit code 1 where a trial failed.

    Raises:
        UserError: a flag is wrong, or the folder holds another search; nothing has been created.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    args = vars(build_parser().parse_args(argv))
    folder: Path = args["output_dir"]
    study.check_available()
    check_flags(args)
    for name, least in (("n_trials", 1), ("grid_points", 1), ("n_trial_seeds", 1), ("jobs", 1), ("retries", 0)):
        if args[name] < least:
            raise UserError(f"--{name} must be at least {least}, not {args[name]}")
    search = _search(args)
    _tell(search, args["n_trials"])
    if args["dry_run"]:
        return ExitCode.DONE
    with run_lock(folder, patience=-1):
        there = read_search(folder)
        if there:
            check_same(folder, there, search)
        elif (folder / PLAN).exists():
            raise UserError(f"{folder} holds a sweep: give another --output_dir")
        else:
            write_search(folder, search)
    flags = {name: args[name] for name in EVERY_JOB if name not in _SHARED}
    flags = {name: value for name, value in flags.items() if value != FLAGS[name].default}
    shared = Study(folder, search)
    n_trials = min(args["n_trials"], search.size or args["n_trials"])
    searcher = Searcher(folder, shared, min(args["jobs"], n_trials), args["retries"], flags, args["reuse_processes"])
    try:
        failed = searcher.run(n_trials, not args["no_wait"])
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same search goes on, each job from its last checkpoint") from None
    _report(folder, shared)
    return ExitCode.RETRY if failed else ExitCode.DONE


def _search(args: dict[str, Any]) -> Search:
    """The search that the flags describe, checked.

    Raises:
        UserError: a flag is wrong.
    """
    algorithm, dataset = args["algorithm"], args["dataset"]
    official = get_card(dataset).test_envs
    given_envs = numbers_of(args["test_envs"] or (), dataset, args["data_dir"])
    if official and given_envs and sorted(given_envs) != list(official):
        raise UserError(f"{dataset}: its official test sets are held out together: leave out --test_envs")
    if args["holdout_fraction"] == 0:
        raise UserError("a search needs out-splits to validate on: --holdout_fraction must be above 0")
    sweep = Sweep(
        [dataset],
        [algorithm],
        n_hparams=1,
        n_trials=args["n_trial_seeds"],
        hparams=args["hparams"],
        single_test_envs=True,
        test_envs=None if official else given_envs or [0],
        **{name: args[name] for name in _SHARED},
    )
    check_sweep(sweep, needs_data=not args["dry_run"])
    given = hparams_registry.parse(args["hparams"]) if args["hparams"] else {}
    unread = hparams_registry.override({}, given, algorithm, dataset)
    if unread:
        warn(f"{algorithm} does not read the hparams {', '.join(unread)}: left out")
    given = {name: value for name, value in given.items() if name not in unread}
    ranges = search_space.read_space(args["search_space"]) if args["search_space"] else {}
    space = search_space.space_of(algorithm, dataset, args["search"], ranges, given)
    fixed = fixed_hparams(algorithm, dataset, space, given)
    how = {name: args[name] for name in ("sampler", "seed", "prune", "grid_points")}
    return Search(sweep, search_space.as_json(space), fixed, **how)


def _tell(search: Search, n_trials: int) -> None:
    print(f"{search.algorithm} on {search.dataset}: {search.sampler}, objective: {search.objective_line}")
    for name, one in search.dimensions.items():
        print(f"  {name}: {one}")
    if search.size is not None and search.size < n_trials:
        n_trials = search.size
        print(f"the grid has {n_trials} points")
    print(f"{n_trials} trials of {search.n_jobs()} {'run' if search.n_jobs() == 1 else 'runs'}", flush=True)


def _report(folder: Path, shared: Study) -> None:
    """The best trials, and what to do with them."""
    over = [trial for trial in shared.trials() if trial.state == study.COMPLETE]
    best = sorted(over, key=lambda trial: (-(trial.value or 0), trial.number))[:3]
    rows = [[str(trial.number), f"{100 * (trial.value or 0):.2f}", in_words(trial.values)] for trial in best]
    if rows:
        show(("trial", "validation %", "hparams"), rows, prose=("hparams",))
    print(f"Results: {folder}")
    for command, flags in (("list_top_hparams", {"input_dir": folder}), ("collect_results", {"input_dir": folder})):
        print(f"More: {shlex.join(['domainbed-adm', command, *words(flags)])}")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
