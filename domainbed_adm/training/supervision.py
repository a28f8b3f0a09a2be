"""Starts the processes of a run on several devices, and sees to it that they end together. Loads no torch.

This process trains nothing: it waits, so that it hears at once that a rank has ended, whatever the others wait for.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, BinaryIO

import domainbed_adm
from domainbed_adm.errors import LoadingError, NonFiniteError, UserError
from domainbed_adm.run_args import RunArgs
from domainbed_adm.run_files import ERR, ExitCode
from domainbed_adm.system.process import held_back

#: Seconds that ranks have to end by themselves, and to say why where one has only lost another.
_PATIENCE = 10.0
_ERRORS = {ExitCode.USER_ERROR: UserError, ExitCode.NOT_FINITE: NonFiniteError, ExitCode.RETRY: LoadingError}


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    pipe: BinaryIO

    def outcome(self) -> dict[str, Any]:
        """How it ended, as ``rank`` tells it; {} where it could not tell."""
        told = self.pipe.read()
        self.pipe.close()
        return dict(json.loads(told)) if told else {}


def train_on_devices(args: RunArgs) -> None:
    """Train on ``args.devices`` devices, each in a process of its own; all have ended when this returns or raises.

    Raises:
        UserError: as ``loop.train`` and ``setup.set_up`` raise it; so are the others.
        NonFiniteError: a number is not finite.
        LoadingError: a rank, or a process that loads data, was killed.
        KeyboardInterrupt: a rank was interrupted.
    """
    ranks: list[_Rank] = []
    with tempfile.TemporaryDirectory(prefix="domainbed_adm_") as folder:
        try:
            for number in range(args.devices):
                ranks.append(_start(args, number, Path(folder, "meeting")))
            number, outcome = _first_cause(ranks)
            killed = _killed(ranks[number], args.devices) if not outcome else ""
        finally:
            _end(ranks)
    if killed:
        outcome = {"code": ExitCode.RETRY, "told": killed}
    if outcome["code"] == ExitCode.DONE:
        return
    if outcome["code"] == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if killed or number:  # the first rank has written its own
        with suppress(OSError), Path(args.output_dir, ERR).open("a", encoding="utf-8") as file:
            file.write(f"{outcome['told']}\n")
    raise _ERRORS[outcome["code"]](outcome["told"])


def _start(args: RunArgs, number: int, meeting: Path) -> _Rank:
    ours, theirs = os.pipe()
    order = {"args": asdict(args), "rank": number, "meeting": str(meeting), "pipe": theirs}
    try:
        with held_back(signal.SIGINT, signal.SIGHUP):  # which a terminal sends to all: this process ends the ranks
            process = subprocess.Popen(
                [sys.executable, "-m", "domainbed_adm.training.rank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if number else None,
                pass_fds=[theirs],
                env=_environment(),
            )
    finally:
        os.close(theirs)
    rank = _Rank(number, process, open(ours, "rb"))  # noqa: SIM115, PTH123
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()  # open from now on, so that the rank sees when this process is gone
    return rank


def _environment() -> dict[str, str]:
    """This process's, with messages on the machine's own interface unless it says otherwise."""
    environment = dict(os.environ)
    path = [str(Path(domainbed_adm.__file__).parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if loopback := next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None):
        for library in ("GLOO", "NCCL"):
            environment.setdefault(f"{library}_SOCKET_IFNAME", loopback)
    return environment


def _first_cause(ranks: list[_Rank]) -> tuple[int, dict[str, Any]]:
    """The rank whose end ends the run, and how it ended: the first that failed, else the first rank."""
    running = {rank.pipe.fileno(): rank for rank in ranks}
    done, lost, until = (0, {"code": ExitCode.DONE}), None, None
    while running:
        ready = wait(list(running), None if until is None else max(0.0, until - time.monotonic()))
        if not ready:
            break
        for pipe in ready:
            rank = running.pop(int(pipe))  # type: ignore[arg-type]
            outcome = rank.outcome()
            if outcome.get("lost"):
                lost, until = lost or (rank.number, outcome), until or time.monotonic() + _PATIENCE
            elif outcome.get("code") != ExitCode.DONE:
                return rank.number, outcome
    return lost or done


def _killed(rank: _Rank, count: int) -> str:
    """What to say of a rank that could not."""
    try:
        code = rank.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        code = 0
    try:
        how = f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended with code {code}"
    return f"process {rank.number + 1} of the run's {count} {how}, perhaps for want of memory"


def _end(ranks: list[_Rank]) -> None:
    """End all ranks: gently, then, or where that is interrupted, at once."""
    try:
        for rank in ranks:
            rank.process.terminate()
        until = time.monotonic() + _PATIENCE
        for rank in ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.process.wait(max(0.0, until - time.monotonic()))
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.wait()
            with suppress(BrokenPipeError):
                rank.process.stdin.close()  # type: ignore[union-attr]
            rank.pipe.close()
