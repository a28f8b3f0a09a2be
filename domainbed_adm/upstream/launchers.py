"""Our command launchers, and those of extensions, for DomainBed's sweep, which knows a launcher by its commands alone.

What ``sweep launch`` takes as flags are words of the environment variable ``DOMAINBED_ADM_LAUNCHER`` here, such as
``--jobs 4 --reuse_processes``.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Sequence

from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers import LauncherCard

VARIABLE = "DOMAINBED_ADM_LAUNCHER"


def host_launcher(card: LauncherCard) -> Callable[[Sequence[str]], None]:
    """The launcher as DomainBed calls it; how many commands failed is printed, as DomainBed drops exit codes."""

    def launch(commands: Sequence[str]) -> None:
        flags = _flags(card)
        jobs = flags.pop("jobs")
        codes = card.start(flags)(list(commands), labels=[_label(command) for command in commands], jobs=jobs)
        if codes is not None and any(codes):
            print(f"{sum(code != 0 for code in codes)} of {len(codes)} commands failed")

    return launch


def _flags(card: LauncherCard) -> dict[str, object]:
    parser = argparse.ArgumentParser(VARIABLE, add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--jobs", type=int, default=card.jobs)
    for flag in card.flags:
        if flag.kind is bool:
            parser.add_argument(f"--{flag.name}", action=argparse.BooleanOptionalAction, default=flag.default)
        else:
            parser.add_argument(f"--{flag.name}", type=flag.kind, default=flag.default)
    try:
        known, rest = parser.parse_known_args(shlex.split(os.environ.get(VARIABLE, "")))
    except (argparse.ArgumentError, ValueError) as error:
        raise UserError(f"{VARIABLE}: {error}") from None
    if rest or known.jobs < 1:
        valid = ", ".join(["--jobs", *(f"--{flag.name}" for flag in card.flags)])
        raise UserError(
            f"{VARIABLE}: {' '.join(rest) or f'--jobs {known.jobs}'} is no flag of {card.name}. Valid: {valid}"
        )
    return vars(known)


def _label(command: str) -> str:
    """The job's folder, where the command names one."""
    words = shlex.split(command)
    return words[words.index("--output_dir") + 1] if "--output_dir" in words[:-1] else command
