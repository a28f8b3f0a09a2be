"""Disks that fill up while a run trains: one clear line, a checkpoint that loads, and an end like its twin's."""

from __future__ import annotations

import contextlib
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from domainbed_adm.training.model_file import load_tensors
from tests.torture.kills import SAMPLE, flags, fork, same, twins, wait

ROUNDS = 22


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """A file system of 6 MB at ``folder``; yields why there is none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else None
    except OSError as error:
        reason = str(error)
    try:
        yield reason
    finally:
        if reason is None:
            subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to ``path`` until nothing more fits on its disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def limit(size: int) -> None:
    """No file of this process may be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def one(root: Path, disk: Path, number: int, chance: random.Random, mounted: bool) -> str:
    """Train on a disk that fills up, make room, go on; returns "hit", "missed" (it ended before) or a fault."""
    case = SAMPLE[number % len(SAMPLE)]
    twin, length = next(twins(root / str(number), 60, [case]))
    run, errors = flags(case, disk / "run", 60), root / "errors"
    largest = (twin / "model.pkl").stat().st_size * 3
    before: Callable[[], None] = (lambda: None) if mounted else (lambda: limit(int(largest * chance.random())))
    pid = fork(run, before, str(errors))
    if mounted:
        time.sleep(chance.uniform(0.1, 1) * length)
        fill(disk / "filler")
    code = wait(pid)
    (disk / "filler").unlink(missing_ok=True)
    fault = None
    message = errors.read_text()
    if code not in {0, 2}:
        fault = f"exit code {code}"
    elif code == 2 and ("cannot write" not in message and "disk is full" not in message or message.count("\n") != 1):
        fault = f"unclear: {message}"
    checkpoint = disk / "run" / "checkpoint.pkl"
    if checkpoint.exists():
        load_tensors(checkpoint, ["position"])
    if list((disk / "run").glob("*.unfinished")) and code == 2:
        fault = "an unfinished file is left"
    if wait(fork(run)) or not same(twin, disk / "run"):
        fault = fault or "it does not end like its twin"
    subprocess.run(["rm", "-r", str(disk / "run")], check=True)
    return fault or ("hit" if code else "missed")


def torture(rounds: int = ROUNDS, seed: int = 0) -> int:
    """Print rounds, hits and faults; return the faults."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as reason:
        results = []
        for number in range(rounds):
            (Path(name) / str(number)).mkdir()
            results.append(one(Path(name), Path(name) / "disk", number, chance, reason is None))
    how = "a tmpfs of 6 MB" if reason is None else f"a limit of file sizes, as no tmpfs can be mounted ({reason})"
    found = [result for result in results if result not in {"hit", "missed"}]
    hits = len(results) - results.count("missed")
    print(f"disks: {rounds} runs on {how}, {hits} met the full disk, {len(found)} faults", flush=True)
    for fault in found:
        print(f"  {fault}")
    return len(found)
