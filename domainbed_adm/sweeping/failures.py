"""``failed.json``: how a job's last attempt failed, in its folder; a later success takes it away."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from domainbed_adm.run_files import FAILED
from domainbed_adm.system.console import printable
from domainbed_adm.system.disk import replacing

#: An error as Python or a command of this package prints it.
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Exit)\b|\S+: error: ")


@dataclass(frozen=True)
class Failure:
    """A job's failure.

    Attributes:
        exit_code: of the process; None where a signal ended it.
        signal: its name, as "SIGKILL"; None where none did.
        exception: the line of the error; "" where the process had no time to print one.
        stderr: its last lines of standard error.
        attempts: how many have failed since the last success.
        time: when, in ISO 8601.
        job: which job it was, in words.
    """

    exit_code: int | None
    signal: str | None
    exception: str
    stderr: list[str]
    attempts: int
    time: str
    job: str = ""

    @property
    def reason(self) -> str:
        """One line."""
        ended = f"killed by {self.signal}" if self.signal else f"exit code {self.exit_code}"
        times = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        silent = "a system that runs out of memory does so" if self.signal == "SIGKILL" else ""
        why = self.exception or silent
        return f"{ended}{times}" + (f": {why}" if why else "")


def failure_of(code: int, stderr: Sequence[str], attempts: int, job: str = "") -> Failure:
    """The failure of a process that just ended; ``code`` is negative for a signal, ``job`` says which job it was."""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return Failure(
        exit_code=code if code >= 0 else None,
        signal=name if code < 0 else None,
        exception=_exception(stderr),
        stderr=list(stderr),
        attempts=attempts,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        job=job,
    )


def write(folder: Path, code: int, stderr: Sequence[str], attempts: int, job: str = "") -> None:
    """Write ``failed.json`` of the process of :func:`failure_of`.

    Raises:
        UserError: the system refuses.
        OSError: it refuses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FAILED) as file:
        file.write(json.dumps(asdict(failure_of(code, stderr, attempts, job)), indent=1).encode() + b"\n")


def read(folder: Path) -> Failure | None:
    """The failure in ``folder``, its texts made printable; None where there is none that can be read."""
    path = folder / FAILED
    try:
        failure = Failure(**json.loads(path.read_bytes())) if path.is_file() else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    if failure is None or not _is_sound(failure):
        return None
    texts: dict[str, Any] = {name: printable(value) for name, value in vars(failure).items() if isinstance(value, str)}
    return replace(failure, **texts, stderr=[printable(line) for line in failure.stderr])


def _is_sound(failure: Failure) -> bool:
    """Whether every field is of its type and in its range, as JSON may hold anything."""
    by_code = failure.signal is None
    numbers = (failure.attempts, failure.exit_code) if by_code else (failure.attempts,)
    texts = (failure.exception, failure.time, failure.job) + (() if by_code else (failure.signal,))
    return (
        (by_code or failure.exit_code is None)
        and all(type(number) is int and 0 <= number < 2**32 for number in numbers)
        and isinstance(failure.stderr, list)
        and all(isinstance(text, str) for text in (*texts, *failure.stderr))
    )


def clear(folder: Path) -> None:
    """Take ``failed.json`` away."""
    (folder / FAILED).unlink(missing_ok=True)


def _exception(lines: Sequence[str]) -> str:
    """The last line that is an error's, as the message may go on below it; else the last line."""
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return (errors or [line.strip() for line in lines if line.strip()] or [""])[-1]
