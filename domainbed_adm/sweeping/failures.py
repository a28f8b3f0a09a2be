"""``failed.json``: how a job's last attempt failed, in its folder; a later success takes it away."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import msgspec

from domainbed_adm.run_files import ERR, FAILED, ExitCode
from domainbed_adm.system.console import printable
from domainbed_adm.system.disk import replacing

#: An error as Python or a command of this package prints it.
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Exit)\b|\S+: error: ")
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Failure:
    """A job's failure: either an exit code or the name of a signal, as "SIGKILL".

    ``exception`` is the line of the error, "" where the process had no time to print one; ``stderr`` its last lines,
    ``attempts`` how many have failed since the last success, ``time`` in ISO 8601, ``job`` which it was, in words.
    """

    exit_code: _Count | None
    signal: str | None
    exception: str
    stderr: list[str]
    attempts: _Count
    time: str
    job: str = ""

    @property
    def reason(self) -> str:
        """One line."""
        ended = f"killed by {self.signal}" if self.signal else f"exit code {self.exit_code}"
        times = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        told = self.exception.removeprefix("domainbed-adm: error: ")
        why = told or ("a system that runs out of memory does so" if self.signal == "SIGKILL" else "")
        return f"{ended}{times}" + (f": {why}" if why else "")

    @property
    def kind(self) -> str:
        """The reason without what is this job's alone: "not finite at step 0" for all losses, methods and folders."""
        if self.exit_code != ExitCode.NOT_FINITE:
            return self.reason
        step = re.search(r"\bstep (\d+): ", self.exception)
        return f"not finite at step {step[1]}" if step else "not finite"


def failure_of(code: int, stderr: Sequence[str], attempts: int, job: str = "") -> Failure:
    """The failure of a process that just ended; ``code`` is negative for a signal, ``job`` says which job it was."""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    # the last line that is an error's, as the message may go on below it; else the last line
    errors = [line for line in stderr if _ERROR_LINE.match(line)]
    exception = (errors or [line.strip() for line in stderr if line.strip()] or [""])[-1]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    killed = code < 0
    return Failure(None if killed else code, name if killed else None, exception, list(stderr), attempts, now, job)


def write(folder: Path, code: int, stderr: Sequence[str], attempts: int, job: str = "") -> None:
    """Write ``failed.json`` of the process of :func:`failure_of`; a UserError or OSError where the system refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FAILED) as file:
        file.write(json.dumps(asdict(failure_of(code, stderr, attempts, job)), indent=1).encode() + b"\n")


def read(folder: Path) -> Failure | None:
    """The failure in ``folder``, its texts made printable; None where there is none that can be read."""
    path = folder / FAILED
    try:
        failure = msgspec.convert(json.loads(path.read_bytes()), Failure) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    if failure is None or (failure.signal is None) is (failure.exit_code is None):
        return None
    texts: dict[str, Any] = {name: printable(value) for name, value in vars(failure).items() if isinstance(value, str)}
    return replace(failure, **texts, stderr=[printable(line) for line in failure.stderr])


def failure_lines(folders: Iterable[tuple[str, Path]]) -> list[str]:
    """Of failed runs, each (what it is, its folder): a line for each reason, with the file that says more.

    As ``6 x not finite at step 0, first SAM on PACS, test_envs 0 (<folder>/err.txt)``; a reason that one run alone has
    is told in full: ``SAM on PACS, test_envs 0: exit code 1: ... (<folder>/err.txt)``.
    """
    alike: dict[str, list[tuple[str, Path, Failure | None]]] = {}
    for label, folder in folders:
        failure = read(folder)
        kind = failure.kind.replace(printable(str(folder)), "<its folder>") if failure else "unknown"
        alike.setdefault(kind, []).append((label, folder, failure))
    lines = []
    for kind, runs in alike.items():
        label, folder, failure = runs[0]
        reason = f"{label}: {failure.reason if failure else kind}"
        told = reason if len(runs) == 1 else f"{len(runs)} x {kind}, first {label}"
        lines.append(printable(f"{told} ({told_in(folder)})"))
    return lines


def told_in(folder: Path) -> Path:
    """The file of a failed run that says most: err.txt, or failed.json where it did not come so far as to write one."""
    return folder / (ERR if (folder / ERR).exists() else FAILED)
