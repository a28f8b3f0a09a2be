"""``sweep``: launch many runs, count them by state, or delete the folders of those that did not finish."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import words
from domainbed_adm.run_files import PLAN, ExitCode
from domainbed_adm.sweeping.cost import show_cost
from domainbed_adm.sweeping.flags import (
    add_shared_flags,
    described_sweep,
    is_described,
    job_flags,
    launcher_of,
    parsed,
)
from domainbed_adm.sweeping.jobs import DONE, RUNNING, UNFINISHED, delete_incomplete, with_states
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers import LAUNCHERS, slurm
from domainbed_adm.sweeping.plan import add_to_plan, drop_from_plan, planned, planned_jobs
from domainbed_adm.sweeping.rates import given_rate, measured_rates
from domainbed_adm.sweeping.status import show_status, summary
from domainbed_adm.sweeping.workers import start_workers
from domainbed_adm.system.console import Parser

EXAMPLES = """\
  domainbed-adm sweep launch --sweep smoke --output_dir results/smoke --jobs 2 --skip_confirmation
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper --dry_run
  domainbed-adm sweep launch --sweep paper_cifar --output_dir results/cifar --dry_run --images_per_second 5000
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper --plan_only
  domainbed-adm sweep work results/paper --time_limit 3h
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper \\
      --command_launcher slurm --workers 8 --slurm partition=gpu,time=4:00:00,gres=gpu:1,cpus-per-task=4
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper \\
      --command_launcher ray --ray_address 10.0.0.1:6379 --gpus_per_job 0.25
  domainbed-adm sweep status results/smoke

--command_launcher slurm submits one array of --workers N tasks (or --jobs N; a run then loads data with as many
processes as fit its task's CPUs). Each takes jobs until none is left. Preempted, or near its time limit, it ends its
run at the last checkpoint and goes back into the queue; after sweep cancel, or scancel, it does not. While the array
lives the same launch submits nothing; after its end it submits what is left. What they say is in FOLDER/slurm.

--command_launcher ray runs each job as a task with one CPU of a Ray cluster, whose nodes share the disk and have this
environment at the same path. A job whose node is lost goes on elsewhere; Ctrl-C ends jobs at their last checkpoint. Of
this process's variables jobs get PYTHONPATH, OMP_NUM_THREADS and DOMAINBED_ADM_WORKERS."""


_ABOUT_RATE = "with --dry_run: images that plain training passes in a second, for the sweep's cost in GPU hours"
_ABOUT_RATE_FROM = (
    "with --dry_run: take the rate from the step times of the runs in this folder, or from a file that "
    "benchmarks.step_cost or benchmarks.gpu stored"
)


def build_parser() -> Parser:
    """The flags; DomainBed's names and defaults where it has them."""
    parser = Parser(
        "domainbed-adm sweep",
        description="Launch many runs, count them by state, or delete the folders of those that did not finish. The\n"
        "same launch again starts what was not launched, goes on with what is incomplete, and retries what failed.\n"
        "work runs the jobs of a launch on this machine beside workers on others (sweep work --help).",
        examples=EXAMPLES,
    )
    parser.add_argument("command", choices=("launch", "work", "status", "cancel", "delete_incomplete"))
    add_shared_flags(parser, list(LAUNCHERS))
    add = parser.add_argument
    add("--dry_run", action="store_true", help="count the jobs and passes of each method, and do nothing")
    add("--images_per_second", type=float, metavar="N", help=_ABOUT_RATE)
    add("--rate_from", type=Path, metavar="PATH", help=_ABOUT_RATE_FROM)
    add("--plan_only", action="store_true", help="write the plan that sweep work reads, and run nothing")
    add("--skip_confirmation", action="store_true", help="do not ask before launching or deleting")
    return parser


def parse(argv: Sequence[str], raising: bool = False) -> argparse.Namespace:
    """The flags given, over those of the named sweep, over the defaults; ``raising``: a mistake is a UserError."""
    parser = build_parser()
    parser.raising = raising
    return parsed(parser, argv)


def main(argv: Sequence[str]) -> int:
    """Run the command; exit code 1 where a job failed.

    Raises:
        UserError: a flag is wrong; nothing has been created.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    if argv[:1] == ["work"]:
        from domainbed_adm.scripts import sweep_work

        return sweep_work.main(argv[1:])
    args = parse(argv)
    if args.command == "work":
        raise UserError("work must be the first word: sweep work --help")
    folder = expanded(args.output_dir)
    if args.command == "cancel":
        slurm.cancel(folder)
        return ExitCode.DONE
    if args.command == "launch":
        return launch(args, folder)
    described = is_described(argv)
    jobs = [] if described else planned_jobs(folder)
    if args.folder and not described and not jobs:
        raise UserError(
            f"{folder} has no {PLAN}, which sweep launch writes: give the flags of the launch too, such as --sweep NAME"
        )
    jobs = jobs or described_sweep(args, needs_data=False).jobs(folder)
    if args.command == "status":
        show_status(jobs)
        slurm.show_whereabouts(folder)
        return ExitCode.DONE
    now = with_states(jobs)
    print(summary(now))
    count = sum(state in UNFINISHED for _, state in now)
    if count:
        _confirm(f"Delete the folders of {count} incomplete or failed jobs?", args.skip_confirmation)
    print(f"Deleted {delete_incomplete(jobs)} folders")
    drop_from_plan(folder)
    return ExitCode.DONE


def launch(args: argparse.Namespace, folder: Path) -> int:
    """Launch the sweep that these flags describe in ``folder``; returns the exit code, 1 where a job failed.

    Raises:
        UserError: a flag is wrong; nothing has been created.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    if (args.images_per_second is not None or args.rate_from) and not args.dry_run:
        raise UserError("--images_per_second and --rate_from are for --dry_run, which tells what a sweep costs")
    dummy, runs = args.command_launcher == "dummy", not (args.dry_run or args.plan_only)
    card = LAUNCHERS[args.command_launcher]
    launcher = launcher_of(args) if runs else None  # what it refuses is told before anything is made
    sweep = described_sweep(args, needs_data=runs and not dummy and card.takes == "jobs")
    rates = None if args.images_per_second is None else given_rate(args.images_per_second)
    rates = measured_rates(args.rate_from) if args.rate_from else rates
    flags, workers = job_flags(args), args.jobs
    if card.takes == "workers":
        workers = flags.pop("workers", workers)
    if workers < 1:
        raise UserError(f"--workers must be at least 1 for --command_launcher {card.name}, not {workers}")
    jobs = sweep.jobs(folder, flags)
    if args.dry_run:
        show_status(jobs)
        show_cost(jobs, rates)
        return ExitCode.DONE
    now = with_states(jobs)
    print(summary(now))
    if launcher is None:
        add_to_plan(folder, sweep, flags)
        print(f"Workers: {shlex.join(['domainbed-adm', 'sweep', 'work', *words({'output_dir': folder})])}")
        return ExitCode.DONE
    todo = [job for job, state in now if state not in {DONE, RUNNING}]
    if dummy:
        launcher([job.command for job in todo])
        return ExitCode.DONE
    if todo:
        _confirm(f"Run {len(todo)} jobs?", args.skip_confirmation)
    try:
        if card.takes == "workers":
            count = min(workers, sum(state != DONE for _, state in now))
            with planned(folder, sweep, flags):
                code = start_workers(launcher, folder, jobs, count, args.retries, args.reuse_processes)
        else:
            add_to_plan(folder, sweep, flags)
            own = Launch(jobs, launcher, args.jobs, args.retries)
            code = own.run()
            if any(flag.name == "jobs_per_gpu" for flag in card.flags):
                print(own.taken())
    except KeyboardInterrupt as told:
        raise KeyboardInterrupt(*told.args or ("the same launch goes on, each job from its last checkpoint",)) from None
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
