"""``study``: a comparison that is stated before it runs, run as a sweep, and ended by a verdict."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from domainbed_adm.cli import run
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_args import words
from domainbed_adm.studying.outcome import Pilot, finished_runs, pilot, source_accuracies
from domainbed_adm.studying.plan import StudyPlan, begin, fixed_plan, read_plan, statement
from domainbed_adm.sweeping.jobs import DONE, Job, check_sweep, with_states
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.plan import add_to_plan
from domainbed_adm.system import figures
from domainbed_adm.system.console import Parser
from domainbed_adm.system.disk import replacing

EXAMPLES = """\
  domainbed-adm study plan.yaml --dry_run
  domainbed-adm study plan.yaml --output_dir results/study --pilot --jobs 2
  domainbed-adm study plan.yaml --output_dir results/study --jobs 2
  domainbed-adm study benchmarks/study_domainbed.yaml --domainbed DomainBed --output_dir results/theirs

a plan:
  about: does ADM's order help, beyond SAM and at its own cost?
  datasets: [RotatedDigits, ColoredDigits, Letters]
  steps: 1000
  n_trials: 3
  arms:
    SAM: {algorithm: SAM}
    SAM, passes of ADM: {algorithm: SAM, match_passes: SAM_SSPL_ADM}
    ADM: {algorithm: SAM_SSPL_ADM}
    random: {algorithm: SAM_SSPL_Random, control_of: ADM}
    hard first: {algorithm: SAM_SSPL_ADM, hparams: {curriculum_order: hard_first}, control_of: ADM}
  primary: {arm: ADM, baseline: SAM}
  smallest_difference: 1.0"""


def build_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "domainbed-adm study",
        description="Compare ways to train, by a plan that is stated and fixed before a test accuracy is seen: what\n"
        "is compared, on what, how often, which comparison counts and which difference is of interest. It runs as a\n"
        "sweep (the same command goes on; sweep status and sweep work take its folder) and ends in study.html and\n"
        "study.md there: differences with intervals, controls beside their arms, accuracy against passes, a verdict.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    add("plan", type=Path, metavar="PLAN.yaml")
    add("--output_dir", help="folder of the study; not needed with --dry_run")
    add("--data_dir", help="folder that holds the datasets; not needed for digits and letters")
    add(
        "--domainbed", metavar="DIR", help="a DomainBed checkout, whose algorithms may be arms (default: DOMAINBED_DIR)"
    )
    add("--dry_run", action="store_true", help="say what would be compared, and do nothing")
    about = "run the primary comparison's first trials alone, and say from their source accuracies how many it takes"
    add("--pilot", action="store_true", help=about)
    add("--plan_only", action="store_true", help="fix the plan and leave the runs to workers (sweep work OUTPUT_DIR)")
    add("--jobs", default=1, help="processes at a time (default 1)", **number)
    add("--retries", default=1, help="how often to try a failed job again (default 1)", **number)
    add("--title", help="heading of the page; default: the plan's name")
    return parser


def main(argv: Sequence[str]) -> int:
    """State, run, and write the page; exit code 1 where a job failed.

    Raises:
        UserError: the plan, a flag or the checkout is wrong, or the study began with another plan; nothing has been
            started or lost.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    args = build_parser().parse_args(argv)
    if args.jobs < 1 or args.retries < 0:
        raise UserError(f"--jobs must be at least 1 and --retries at least 0, not {args.jobs} and {args.retries}")
    if args.domainbed:
        load_checkout(args.domainbed)
    plan = read_plan(args.plan)
    folder = expanded(args.output_dir) if args.output_dir else Path("study")
    jobs = plan.jobs(folder, args.data_dir)
    print("\n".join(statement(plan, jobs)))
    if args.dry_run:
        return 0
    if not args.output_dir:
        raise UserError("give the study's folder: --output_dir results/study")
    figures.check_available()
    for arm in plan.arms:
        for sweep in plan.sweeps(arm, args.data_dir):
            check_sweep(sweep, needs_data=not args.plan_only)
    if args.pilot:
        return _pilot(plan, folder, args.data_dir, args.jobs, args.retries)
    if begin(folder, plan):
        print(f"The plan is fixed: {folder}")
    for arm in plan.arms:
        for sweep in plan.sweeps(arm, args.data_dir):
            add_to_plan(folder, sweep, plan.job_flags)
    if args.plan_only:
        print(f"Workers: {shlex.join(['domainbed-adm', 'sweep', 'work', *words({'output_dir': folder})])}")
        return 0
    code = _run([job for own in jobs.values() for job in own], args.jobs, args.retries)
    _write(plan, jobs, folder, args.title or f"Study {args.plan.stem}", argv)
    return code


def _run(jobs: Sequence[Job], slots: int, retries: int) -> int:
    """Run what is not done, on this machine.

    Raises:
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    if all(state == DONE for _, state in with_states(jobs)):
        return 0
    launcher = LAUNCHERS["local"].start({"reuse_processes": True})
    try:
        return Launch(jobs, launcher, slots, retries).run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on, each run from its last checkpoint") from None


def _pilot(plan: StudyPlan, folder: Path, data_dir: str | None, slots: int, retries: int) -> int:
    """Run the pilot, whose runs count in the study later, and say what its spread means.

    Raises:
        UserError: the study has begun, or too few runs finished.
    """
    if fixed_plan(folder) is not None:
        raise UserError(
            f"the study in {folder} has begun: its number of trials is fixed, give another --output_dir to a pilot"
        )
    pair = (plan.primary.arm, plan.primary.baseline)
    planned = plan.jobs(folder, data_dir, plan.pilot_trials)
    jobs = {arm: planned[arm] for arm in pair}
    code = _run([job for own in jobs.values() for job in own], slots, retries)
    arm, baseline = (source_accuracies(finished_runs(jobs[name])) for name in pair)
    found = pilot(arm, baseline)
    if found is None:
        raise UserError("too few pilot runs finished to know the spread: sweep status says what failed")
    print("\n".join(pilot_lines(found, plan)))
    return code


def pilot_lines(found: Pilot, plan: StudyPlan) -> list[str]:
    """What the pilot says, for people."""
    smallest, needed = plan.smallest_difference, found.trials_for(plan.smallest_difference)
    planned = found.half_width(plan.n_trials)
    lines = [
        f"Pilot: {found.n_trials} trials in {found.n_environments} environments, by accuracy on the source out-splits; "
        "no test accuracy was looked at, and those may spread more.",
        f"Spread of {plan.primary.arm} - {plan.primary.baseline}: {found.between:.2f} points between environments, "
        f"{found.within:.2f} between trials of one. With the plan's {plan.n_trials} trials the 95 % interval would "
        f"reach {planned:.2f} points to either side.",
    ]
    if needed is None:
        lines.append(
            f"No number of trials finds a difference of {smallest:g} with power 0.8: the environments themselves "
            "differ too much. More datasets would, or a larger smallest_difference."
        )
    else:
        lines.append(f"A difference of {smallest:g} points is found with power 0.8 by {needed} trials: set n_trials.")
    return lines


def _write(plan: StudyPlan, jobs: dict[str, list[Job]], folder: Path, title: str, argv: Sequence[str]) -> None:
    from domainbed_adm.studying.page import markdown, page
    from domainbed_adm.studying.result import Result

    result = Result(plan, jobs)
    command = shlex.join(["domainbed-adm", "study", *argv])
    html = page(result, title, command, datetime.now(timezone.utc))
    for name, content in (("study.html", html), ("study.md", markdown(result, title))):
        with replacing(folder / name) as file:
            file.write(content.encode(errors="backslashreplace"))
        print(folder / name)
    print(result.verdict.words)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
