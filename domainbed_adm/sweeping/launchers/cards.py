"""The card of a command launcher: its name, where its function is, what it is handed, and the flags that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from domainbed_adm.errors import UserError, import_object

#: A launcher with its flags bound: of commands and, by keyword, what there is to tell.
Start = Callable[..., "Sequence[int] | None"]


@dataclass(frozen=True)
class LauncherFlag:
    """A flag of ``sweep launch`` that only some launchers take, and a parameter of their functions.

    Attributes:
        name: without dashes; also the parameter's.
        about: for ``--help``.
        default: where it is not given.
        kind: str, int, float, or bool for a switch with its ``--no-NAME``.
        least: of a number.
    """

    name: str
    about: str
    default: Any = None
    kind: type = str
    least: float | None = None


@dataclass(frozen=True)
class LauncherCard:
    """A command launcher.

    Attributes:
        name: as ``--command_launcher`` takes it.
        about: one line for ``--help``.
        path: ``module:function``, imported when it launches.
        takes: what its commands are: ``jobs``, each trains one job, or ``workers``, each is ``sweep work``.
        flags: what it takes beside.
        check: ``module:function`` of those flags, called before anything is made; a UserError says what is wrong.
        jobs: how many commands at a time, where ``--jobs`` does not say it.
    """

    name: str
    about: str
    path: str
    takes: Literal["jobs", "workers"] = "jobs"
    flags: tuple[LauncherFlag, ...] = ()
    check: str = ""
    jobs: int = 1

    def start(self, given: Mapping[str, Any] | None = None) -> Start:
        """Its function with these flags, checked; it is told by keyword what it has parameters for, and nothing else.

        Raises:
            UserError: it cannot be imported, or its check refuses.
        """
        options = {flag.name: flag.default for flag in self.flags} | dict(given or {})
        if self.check:
            _told(import_object(self.check, self.name), options)
        function = import_object(self.path, self.name)

        def start(commands: Sequence[str], **told: Any) -> Sequence[int] | None:
            # DomainBed's own pop them from the list; those that ask of each before it starts may want few of many
            own = commands if "skip" in told and _hears(function, "skip") else list(commands)
            codes: Sequence[int] | None = _told(function, {**options, **told}, own)
            if codes is not None and len(codes) != len(commands):
                raise UserError(f"launcher {self.name} returned {len(codes)} exit codes for {len(commands)} commands")
            return codes

        return start


def _told(function: Callable[..., Any], told: Mapping[str, Any], *first: Any) -> Any:
    return function(*first, **{name: value for name, value in told.items() if _hears(function, name)})


def _hears(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
