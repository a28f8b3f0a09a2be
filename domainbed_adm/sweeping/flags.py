"""Flags that ``sweep`` and ``sweep work`` share: what a sweep runs over, and how a machine runs its jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.datasets.environment_names import number_or_name, numbers_of
from domainbed_adm.errors import UserError, lookup
from domainbed_adm.loggers import check_loggers
from domainbed_adm.method.grid import unnamed_methods
from domainbed_adm.registry import checkout_flag, load_checkout
from domainbed_adm.run_args import EVERY_JOB, FLAGS, add_flags, check_flags
from domainbed_adm.sweeping.jobs import Sweep, check_sweep
from domainbed_adm.sweeping.launchers import LAUNCHERS, LauncherFlag, Start
from domainbed_adm.sweeping.plan import named_sweeps, read_named_sweep
from domainbed_adm.system.console import Parser

_ABOUT_DOUBLE_EPOCHS = (
    "of --algorithms, those that run with twice the epochs as well, a row of their own in tables: a rival at the price "
    "of two passes a step; nothing where --steps is given"
)
_FIELDS = tuple(Sweep.__dataclass_fields__)


def default_datasets() -> list[str]:
    """All known ones for domain generalization but Debug28 and Debug224."""
    return [card.name for card in CARDS.values() if not (card.name.startswith("Debug") or card.official_split)]


def launcher_flags(names: Iterable[str]) -> dict[LauncherFlag, list[str]]:
    """The flags of these launchers, each with the names of those that take it."""
    takers: dict[LauncherFlag, list[str]] = {}
    for name in names:
        for flag in LAUNCHERS[name].flags:
            takers.setdefault(flag, []).append(name)
    return takers


def add_shared_flags(parser: Parser, launchers: Sequence[str]) -> None:
    """Add them; DomainBed's names and defaults where it has them. ``launchers`` are those that the command takes."""
    add = parser.add_argument
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
    add("--algorithms", nargs="+", default=unnamed_methods(), metavar="NAME", help="default: the paper's 28")
    add("--double_epochs", nargs="+", default=[], metavar="NAME", help=_ABOUT_DOUBLE_EPOCHS)
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    add("--n_hparams_from", default=0, help="first hparams_seed (default 0, the default hparams)", **number)
    add("--n_hparams", default=20, help="hparams_seeds below this (default 20)", **number)
    add("--n_trials", default=3, help="trials, each with its own split (default 3)", **number)
    add("--seed", type=int, default=0, help="accepted as in DomainBed, where it changes nothing either")
    switch = argparse.BooleanOptionalAction
    add("--single_test_envs", action=switch, default=False, help="hold out single environments only, no pairs")
    about = "hold out each of these alone, by number or name, of each dataset"
    add("--test_envs", type=number_or_name, nargs="+", metavar="ENV", help=about)
    add("--command_launcher", default="local", metavar="NAME", help=f"{', '.join(launchers)} (default local)")
    about = "processes at a time here, or workers elsewhere (default 1"
    add("--jobs", help=about + ("; on Ray as many as fit)" if "ray" in launchers else ")"), **number)
    for flag, takers in launcher_flags(launchers).items():
        metavar = {int: "N", float: "X"}.get(flag.kind, "TEXT")
        how: dict[str, Any] = {"action": switch} if flag.kind is bool else {"type": flag.kind, "metavar": metavar}
        about = f"{flag.about}; for {' and '.join(takers)}".replace("%", "%%")
        add(f"--{flag.name}", default=flag.default, help=about, **how)
    add("--retries", default=1, help="how often to try a failed job again (default 1)", **number)
    shared = parser.add_argument_group("flags of train that every job is given")
    shared.add_argument("--hparams", metavar="JSON", help="override every job's; names of other methods are skipped")
    add_flags(shared, ("hparams_from", "data_dir", "task", "steps", "epochs", "match_passes", "holdout_fraction"))
    add_flags(shared, EVERY_JOB, negatable=True)


def parsed(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """The flags given, over those of the named sweep, over the defaults.

    Raises:
        UserError: the named sweep or a number is wrong.
    """
    args = parser.parse_intermixed_args(argv)
    if args.sweep:
        flags = read_named_sweep(args.sweep)
        for given, other in (("steps", "epochs"), ("epochs", "steps")):
            if getattr(args, given):
                flags.pop(other, None)  # both say how long to train
        parser.set_defaults(**{name: value for name, value in flags.items() if name != "about"})
        args = parser.parse_intermixed_args(argv)
    args.output_dir = args.folder or args.output_dir
    if args.output_dir is None:
        parser.error("the following arguments are required: --output_dir")
    check_flags(vars(args))
    card, minima = lookup(LAUNCHERS, args.command_launcher, "command launcher"), {"jobs": 1.0, "retries": 0.0}
    args.jobs = card.jobs if args.jobs is None else args.jobs
    takers = {flag: names for flag, names in launcher_flags(LAUNCHERS).items() if hasattr(args, flag.name)}
    minima |= {flag.name: flag.least for flag in takers if flag.least is not None}
    for name, least in minima.items():
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name} must be at least {least:g}, not {value}")
    for flag, names in takers.items():
        if getattr(args, flag.name) != flag.default and flag not in card.flags:
            raise UserError(f"--{flag.name} is for --command_launcher {' or '.join(names)}, not {card.name}")
    return args


def described_sweep(args: argparse.Namespace, needs_data: bool) -> Sweep:
    """The sweep that the flags describe, checked."""
    if args.domainbed:
        load_checkout(args.domainbed)
    lists = {name: list(dict.fromkeys(getattr(args, name))) for name in ("datasets", "algorithms", "double_epochs")}
    held_out = numbers_in_each(args.test_envs, lists["datasets"], args.data_dir)
    sweep = Sweep(**{name: getattr(args, name) for name in _FIELDS} | lists | {"test_envs": held_out})
    check_sweep(sweep, needs_data)
    if needs_data:  # the jobs run here: else each would fail, one by one
        check_loggers(args.logger)
    return sweep


def numbers_in_each(
    given: Sequence[int | str] | None, datasets: Iterable[str], data_dir: str | None
) -> list[int] | None:
    """The numbers of these environments, which are the same in each dataset; None where none is given.

    Raises:
        UserError: a name is no environment's, or has another number in another dataset.
    """
    if given is None:
        return None
    found = {dataset: numbers_of(given, dataset, data_dir) for dataset in datasets}
    if len({tuple(numbers) for numbers in found.values()}) > 1:
        told = "; ".join(f"{dataset} {' '.join(map(str, numbers))}" for dataset, numbers in found.items())
        raise UserError(f"--test_envs names other environments of each dataset ({told}): launch them one by one")
    return next(iter(found.values()), None)


def is_described(argv: Sequence[str]) -> bool:
    """Whether a command line says what a sweep runs over, or only where it is."""
    names = {"--sweep", "--no-single_test_envs", *(f"--{name}" for name in _FIELDS)}
    return any(word.partition("=")[0] in names for word in argv)


def job_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of ``train`` that say how to run each job of a described sweep, where they are not the default."""
    flags = {name: getattr(args, name) for name in EVERY_JOB if name not in _FIELDS}
    flags |= checkout_flag(args.algorithms)
    return {name: value for name, value in flags.items() if value != FLAGS[name].default}


def launcher_of(args: argparse.Namespace) -> Start:
    """The launcher that is named, with its flags; it is imported and checked here.

    Raises:
        UserError: it refuses to launch.
    """
    card = LAUNCHERS[args.command_launcher]
    return card.start({flag.name: getattr(args, flag.name) for flag in card.flags})
