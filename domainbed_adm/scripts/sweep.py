"""``sweep``: launch many runs, count them by state, or delete the folders of those that did not finish."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from domainbed_adm.cli import run
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, lookup
from domainbed_adm.method.grid import METHODS
from domainbed_adm.run_args import EVERY_JOB, FLAGS, add_flags, check_flags, words
from domainbed_adm.run_files import PLAN, ExitCode
from domainbed_adm.sweeping.jobs import DONE, RUNNING, UNFINISHED, Sweep, check_sweep, delete_incomplete, with_states
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers import LAUNCHERS, gpus
from domainbed_adm.sweeping.plan import add_to_plan, drop_from_plan, named_sweeps, planned_jobs, read_named_sweep
from domainbed_adm.sweeping.status import show_status, summary
from domainbed_adm.system.console import Parser

EXAMPLES = """\
  domainbed-adm sweep launch --sweep smoke --output_dir results/smoke --jobs 2 --skip_confirmation
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper --dry_run
  domainbed-adm sweep status results/smoke"""

_ABOUT_JOBS_PER_GPU = (
    "processes at a time on each GPU, for multi_gpu (default 1). They take turns on the GPU, a slice of time each, "
    "unless NVIDIA's MPS is running (nvidia-cuda-mps-control -d), with which their kernels run side by side. Memory "
    "adds up: what the jobs took is printed at the end"
)
_ABOUT_REUSE = (
    "import torch once for each process at a time, and run every job in a fork of it: same results, sooner; for local "
    "and multi_gpu"
)
_TAKEN_BY = {"jobs_per_gpu": ("multi_gpu",), "reuse_processes": ("local", "multi_gpu")}
_FIELDS = tuple(Sweep.__dataclass_fields__)


def default_datasets() -> list[str]:
    """All known ones for domain generalization but Debug28 and Debug224."""
    return [card.name for card in CARDS.values() if not (card.name.startswith("Debug") or card.official_split)]


def build_parser() -> Parser:
    """The flags; DomainBed's names and defaults where it has them."""
    parser = Parser(
        "domainbed-adm sweep",
        description="Launch many runs, count them by state, or delete the folders of those that did not finish. The\n"
        "same launch again starts what was not launched, goes on with what is incomplete, and retries what failed.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("command", choices=("launch", "delete_incomplete", "status"))
    add("folder", nargs="?", metavar="FOLDER", help="of the sweep, the same as --output_dir")
    add(
        "--sweep",
        metavar="NAME",
        help=f"a named sweep ({', '.join(named_sweeps())}) or a .yaml file; flags override it",
    )
    add("--output_dir", help="folder of the sweep; each job gets a folder in it")
    add(
        "--datasets",
        nargs="+",
        default=default_datasets(),
        metavar="NAME",
        help="default: those with several domains, but Debug*",
    )
    add("--algorithms", nargs="+", default=list(METHODS), metavar="NAME", help="default: all")
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    add("--n_hparams_from", default=0, help="first hparams_seed (default 0, the default hparams)", **number)
    add("--n_hparams", default=20, help="hparams_seeds below this (default 20)", **number)
    add("--n_trials", default=3, help="trials, each with its own split (default 3)", **number)
    add("--seed", type=int, default=0, help="accepted as in DomainBed, where it changes nothing either")
    switch = argparse.BooleanOptionalAction
    add("--single_test_envs", action=switch, default=False, help="hold out single environments only, no pairs")
    add("--command_launcher", default="local", metavar="NAME", help=f"{', '.join(LAUNCHERS)} (default local)")
    add("--jobs", default=1, help="processes at a time, for local (default 1)", **number)
    add("--jobs_per_gpu", default=1, help=_ABOUT_JOBS_PER_GPU, **number)
    add("--reuse_processes", action=switch, default=False, help=_ABOUT_REUSE)
    add("--retries", default=1, help="how often to try a failed job again (default 1)", **number)
    add("--dry_run", action="store_true", help="count the jobs of each method, and do nothing")
    add("--skip_confirmation", action="store_true", help="do not ask before launching or deleting")
    shared = parser.add_argument_group("flags of train that every job is given")
    shared.add_argument("--hparams", metavar="JSON", help="override every job's; names of other methods are skipped")
    add_flags(shared, ("data_dir", "task", "steps", "epochs", "holdout_fraction"))
    add_flags(shared, EVERY_JOB, negatable=True)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags given, over those of the named sweep, over the defaults.

    Raises:
        UserError: the named sweep or a number is wrong.
    """
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if args.sweep:
        flags = read_named_sweep(args.sweep)
        parser.set_defaults(**{name: value for name, value in flags.items() if name != "about"})
        args = parser.parse_intermixed_args(argv)
    args.output_dir = args.folder or args.output_dir
    if args.output_dir is None:
        parser.error("the following arguments are required: --output_dir")
    check_flags(vars(args))
    lookup(LAUNCHERS, args.command_launcher, "command launcher")
    for name, least in (("jobs", 1), ("jobs_per_gpu", 1), ("retries", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(args, name)}")
    for name in ("jobs_per_gpu", "reuse_processes"):
        launchers = _TAKEN_BY[name]
        if getattr(args, name) != parser.get_default(name) and args.command_launcher not in launchers:
            raise UserError(f"--{name} is for --command_launcher {' or '.join(launchers)}, not {args.command_launcher}")
    return args


def main(argv: Sequence[str]) -> int:
    """Run the command; exit code 1 where a job failed.

    Raises:
        UserError: a flag is wrong; nothing has been created.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    args = parse(argv)
    folder = expanded(args.output_dir)
    if args.command == "launch":
        return _launch(args, folder)
    names = {"--sweep", "--no-single_test_envs", *(f"--{name}" for name in _FIELDS)}
    described = any(word.partition("=")[0] in names for word in argv)
    jobs = [] if described else planned_jobs(folder)
    if args.folder and not described and not jobs:
        raise UserError(
            f"{folder} has no {PLAN}, which sweep launch writes: give the flags of the launch too, such as --sweep NAME"
        )
    jobs = jobs or _sweep(args, needs_data=False).jobs(folder)
    if args.command == "status":
        show_status(jobs)
        return ExitCode.DONE
    now = with_states(jobs)
    print(summary(now))
    count = sum(state in UNFINISHED for _, state in now)
    if count:
        _confirm(f"Delete the folders of {count} incomplete or failed jobs?", args.skip_confirmation)
    print(f"Deleted {delete_incomplete(jobs)} folders")
    drop_from_plan(folder)
    return ExitCode.DONE


def _sweep(args: argparse.Namespace, needs_data: bool) -> Sweep:
    """The sweep that the flags describe, checked."""
    lists = {name: list(dict.fromkeys(getattr(args, name))) for name in ("datasets", "algorithms")}
    sweep = Sweep(**{name: getattr(args, name) for name in _FIELDS} | lists)
    check_sweep(sweep, needs_data)
    return sweep


def _launch(args: argparse.Namespace, folder: Path) -> int:
    dummy = args.command_launcher == "dummy"
    if args.command_launcher == "multi_gpu" and not args.dry_run:
        gpus()  # none is a mistake to be told before anything is made
    sweep = _sweep(args, needs_data=not (dummy or args.dry_run))
    flags = {name: getattr(args, name) for name in EVERY_JOB if name not in _FIELDS}
    jobs = sweep.jobs(folder, {name: value for name, value in flags.items() if value != FLAGS[name].default})
    if args.dry_run:
        show_status(jobs)
        return ExitCode.DONE
    launcher, now = LAUNCHERS[args.command_launcher], with_states(jobs)
    print(summary(now))
    todo = [job for job, state in now if state not in {DONE, RUNNING}]
    if dummy:
        launcher([job.command for job in todo])
        return ExitCode.DONE
    if todo:
        _confirm(f"Run {len(todo)} jobs?", args.skip_confirmation)
    add_to_plan(folder, sweep)
    options = {"reuse": True} if args.reuse_processes else {}
    on_gpus = args.command_launcher == "multi_gpu"
    if on_gpus:
        options["jobs_per_gpu"] = args.jobs_per_gpu
    launch = Launch(jobs, partial(launcher, **options), args.jobs, args.retries)
    try:
        code = launch.run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same launch goes on, each job from its last checkpoint") from None
    if on_gpus:
        print(launch.taken())
    print(f"Results: {folder}")
    print(f"Leaderboard: {shlex.join(['domainbed-adm', 'collect_results', *words({'input_dir': folder})])}")
    return code


def _confirm(question: str, skip: bool) -> None:
    if skip:
        return
    answer = None
    with contextlib.suppress(EOFError):
        answer = input(f"{question} (y/n) ") if sys.stdin.isatty() else None
    if answer is None:
        raise UserError("nobody to confirm: standard input is no terminal; pass --skip_confirmation")
    if not answer.strip().lower().startswith("y"):
        raise UserError("not confirmed, nothing done")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
