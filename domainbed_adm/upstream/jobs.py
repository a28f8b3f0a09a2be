"""Jobs that DomainBed launches in new processes know our methods, too: their commands run through us."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from domainbed_adm.errors import UserError
from domainbed_adm.upstream.host import Host, lacks

#: How DomainBed's sweep begins a job's command.
_COMMAND = re.compile(r"\S*python[\d.]*((?: -[A-Za-z])*) -m domainbed\.scripts\.(\w+)")


def redirect(host: Host) -> None:
    """From now on every launcher of DomainBed, its users' own included, gets commands that run through us."""
    for name, launcher in host.command_launchers.REGISTRY.items():
        host.command_launchers.REGISTRY[name] = functools.partial(_launch, launcher, host)


def _launch(launcher: Callable[[list[str]], Any], host: Host, commands: Sequence[str]) -> Any:
    return launcher([through_us(command, host) for command in commands])


def through_us(command: str, host: Host) -> str:
    """The command of a job, run through us by this Python and on this checkout; flags stay as they are.

    Raises:
        UserError: it is not the command of a script of DomainBed's.
    """
    match = _COMMAND.match(command)
    if not match:
        raise UserError(lacks(host.root, "job command of the form `python -m domainbed.scripts.train ...`"))
    options, script = match.groups()
    words = [sys.executable, *options.split(), "-m", "domainbed_adm.upstream", script, "--domainbed", str(host.root)]
    return shlex.join(words) + command[match.end() :]
