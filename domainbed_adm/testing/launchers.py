"""Conformance of a command launcher: every command runs, its words as they were; what is told is what happened."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.launchers import LauncherCard
from domainbed_adm.sweeping.pool import Outcome

#: A word that a shell would run, split or join.
_EVIL = 'it\'s; $(touch owned) "here" & `touch owned` | *\\ é'
#: Exit codes of the commands: done, failed, locked, interrupted, done.
_CODES = (0, 3, int(ExitCode.LOCKED), int(ExitCode.INTERRUPTED), 0)
_COMMAND = """
import json, os, sys
name, code = sys.argv[1:3]
open(name + "." + str(os.getpid()), "w").write(json.dumps(sys.argv[3:]))
os.rename(name + "." + str(os.getpid()), name + ".ran." + str(os.getpid()))
sys.exit(int(code))
"""


def check_launcher(card: LauncherCard, folder: Path, *, seconds: float = 60.0, **flags: Any) -> None:
    """Check that a launcher starts commands as ``sweeping.launchers`` says.

    Args:
        card: of the launcher; it need not have been added.
        folder: an empty one that the launcher's machines share.
        seconds: to wait for commands that it has handed over to a scheduler.
        flags: of the launcher.
    """
    start, name = card.start(flags), card.name
    nothing = start([], labels=[], jobs=1)
    assert nothing is None or list(nothing) == [], f"{name}: for no commands it must return [] or None, not {nothing}"
    commands = [_command(folder / str(index), code) for index, code in enumerate(_CODES)]
    labels = [f"label {_EVIL} {index}" for index in range(len(commands))]
    codes = start(commands, labels=labels, jobs=2)
    _wait(folder, len(_CODES), 0.0 if codes is not None else seconds)
    for index in range(len(_CODES)):
        ran = list(folder.glob(f"{index}.ran.*"))
        assert len(ran) == 1, f"{name}: command {index} must run once, ran {len(ran)} times"
        words = json.loads(ran[0].read_text())
        assert words == [_EVIL], f"{name}: the words of a command must arrive as they were, {[_EVIL]} became {words}"
    assert not any(path.exists() for path in (folder / "owned", Path("owned"))), f"{name}: a shell has run a word"
    if codes is not None:
        told = f"{name}: it must return the exit codes {list(_CODES)}, in order, not {list(codes)}"
        assert list(codes) == list(_CODES), told
    _check_telling(card, folder, flags)


def _check_telling(card: LauncherCard, folder: Path, flags: dict[str, Any]) -> None:
    """Where it asks, it must heed the answers; where it tells, the truth."""
    asked, ended = list[int](), dict[int, Outcome]()
    times = Counter[int]()

    def skip(index: int) -> bool:
        asked.append(index)
        return index == 1

    def on_end(index: int, outcome: Outcome) -> str | None:
        times[index] += 1
        ended[index] = outcome
        return "told" if outcome.code else None

    commands = [_command(folder / f"told{index}", code) for index, code in enumerate((0, 0, 4))]
    codes = card.start(flags)(commands, labels=["a", "b", "c"], jobs=1, skip=skip, on_end=on_end)
    if asked:
        assert sorted(asked) == [0, 1, 2], f"{card.name}: skip must be asked once of each command, was of {asked}"
        assert not list(folder.glob("told1.ran.*")), f"{card.name} ran a command that skip told it to leave"
    if codes is not None and asked:
        right = [0, int(ExitCode.LOCKED), 4]
        assert list(codes) == right, f"{card.name}: with the second command skipped codes are {right}, not {codes}"
    for index, outcome in ended.items():
        right = [0, int(ExitCode.LOCKED) if asked else 0, 4]
        assert outcome.code == right[index], f"{card.name}: on_end got {outcome.code} for exit code {right[index]}"
        assert times[index] == 1, f"{card.name}: on_end must be told once of each command"


def _command(path: Path, code: int) -> str:
    return shlex.join([sys.executable, "-S", "-c", _COMMAND, os.fspath(path.absolute()), str(code), _EVIL])


def _wait(folder: Path, count: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while len(list(folder.glob("*.ran.*"))) < count and time.monotonic() < end:
        time.sleep(0.05)
