"""What a launcher of jobs shows of them: a bar on a terminal, else a line for each that has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.pool import SKIPPED, Outcome
from domainbed_adm.system.console import ProgressBar

#: What an exit code is called in progress lines; any other is a failure.
_WORDS = {0: "done  ", ExitCode.LOCKED: "runs elsewhere:"}


@contextlib.contextmanager
def progress(
    commands: Sequence[str],
    labels: Sequence[str] = (),
    on_end: Callable[[int, Outcome], str | None] = lambda index, outcome: None,
    tell_skipped: bool = True,
) -> Iterator[Callable[[int, Outcome], None]]:
    """Yield what to call with a command's index and outcome as it ends: it tells ``on_end``, and shows it.

    ``tell_skipped`` says whether what is skipped has a line.
    """
    on_terminal, width, done = Console(stderr=True).is_terminal, len(str(len(commands))), 0
    with ProgressBar("jobs", len(commands)) as bar:

        def report(index: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            why, label = on_end(index, outcome), (labels or commands)[index]
            line = f"{_WORDS.get(outcome.code, 'failed')} {label} ({outcome.seconds:.1f} s)"
            line += f": {why}" if why else ""
            bar.advance(1, line)
            if not on_terminal and (tell_skipped or outcome != SKIPPED):
                print(f"[{done:{width}}/{len(commands)}] {line}", flush=True)

        yield report
