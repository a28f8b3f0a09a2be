"""Runs that are killed with SIGKILL, again and again, must end in the records and weights of their unkilled twins."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401, for the forks

from benchmarks.images import PACS, make_images
from domainbed_adm import records
from domainbed_adm.cli import main as command
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.grid import METHODS
from domainbed_adm.run_args import words
from domainbed_adm.training import loop
from domainbed_adm.training.model_file import read_model
from tests.runs import read_records


class Case(NamedTuple):
    """A run: method, weighting, and whether it reads images, with every flag that makes it faster."""

    method: str
    weighting: str
    fast: bool = False


#: Every family of flatness, curriculum, difficulty and weighting.
SAMPLE = [
    Case("ERM", "both"),
    Case("SPL_Loss", "both"),
    Case("SSPL_ADM", "memory"),
    Case("SAM", "both"),
    Case("SAM_SPL_GDM", "descent"),
    Case("SAM_SSPL_ADM", "both"),
    Case("SAGM_SPL_Loss", "memory"),
    Case("SAGM_SSPL_GDM", "both"),
    Case("FSAM", "both"),
    Case("FSAM_SPL_ADM", "memory"),
    Case("FSAM_SSPL_ADM", "descent"),
]
#: Every method, with the weightings in turn.
EVERY_METHOD = [
    Case(name, WEIGHTINGS[i % len(WEIGHTINGS)] if method.curriculum else "both", fast=True)
    for i, (name, method) in enumerate(METHODS.items())
]
FAST = {"cache": True, "augment_on": "device", "precision": "bf16"}
#: Where a kill is aimed: anywhere, or a random instant after the call of this function has begun.
AIMS: dict[str, tuple[Any, str]] = {
    "checkpoint": (loop, "save_position"),
    "record": (records, "append"),
    "evaluation": (loop, "evaluate"),
}
#: In what two equal runs differ.
NOISE = {"step_time", "wall_time", "mem_gb", "args", "provenance"}


def flags(case: Case, folder: Path, steps: int) -> list[str]:
    """The train command of a run that takes about a second; images lie beside its folder."""
    hparams: dict[str, Any] = {"cnn_width": 8, "batch_size": 3}
    hparams |= {} if case.weighting == "both" else {"weighting": case.weighting}
    run: dict[str, Any] = {"dataset": "Debug28"}
    if case.fast:
        data = make_images(folder.parent, dict.fromkeys(PACS, 14), 32)
        run = {"dataset": "PACS", "data_dir": str(data), "workers": 0, **FAST}
        hparams["image_size"] = 28
        if case.weighting == "memory" and case.method.endswith("ADM"):
            hparams["adm_refresh"] = 0.4
        if METHODS[case.method].difficulty == "ADM" and case.weighting == "memory":
            hparams["adm_refresh"] = 0.5
    run |= {"algorithm": case.method, "output_dir": str(folder), "hparams": json.dumps(hparams), "steps": steps}
    return ["train", *words(run | {"checkpoint_freq": 10, "checkpoint_every": 5})]


def fork(run: list[str], before: Callable[[], None] = lambda: None, stderr: str = os.devnull) -> int:
    """Run a command in a child that has torch imported; return its process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        before()
        code = command(run)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(run: list[str], aim: str, chance: random.Random, length: float) -> bool:
    """Run, and kill it; False where it ended before."""
    reader, writer = os.pipe()
    nth = chance.randrange(1, 5)
    pid = fork(run, lambda: _announce(aim, nth, writer) if aim in AIMS else None)
    os.close(writer)
    if aim in AIMS:  # the pipe closes with the child
        select.select([reader], [], [])
        time.sleep(chance.uniform(0, 0.01))
    else:
        time.sleep(chance.uniform(0, length))
    os.kill(pid, signal.SIGKILL)
    os.close(reader)
    code = wait(pid)
    assert code in {0, -signal.SIGKILL}, f"{run}: exit code {code}"
    return code != 0


def _announce(aim: str, nth: int, writer: int) -> None:
    """Write to the pipe when the function that is aimed at is called for the nth time."""
    place, name = AIMS[aim]
    original, calls = getattr(place, name), iter(range(1, 1000))

    def announcing(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == nth:
            os.write(writer, b"x")
        return original(*args, **kwargs)

    setattr(place, name, announcing)


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """What a run ended in: records without noise, weights."""
    found = read_records(folder)
    kept = [{name: value for name, value in record.items() if name not in NOISE} for record in found]
    return kept, read_model(folder / "model.pkl")["model_dict"]


def same(a: Path, b: Path) -> bool:
    """Whether two runs are done and ended in the same records and weights, bit for bit."""
    if not ((a / "done").exists() and (b / "done").exists()):
        return False
    (records_a, weights_a), (records_b, weights_b) = outcome(a), outcome(b)
    equal = weights_a.keys() == weights_b.keys() and all(torch.equal(weights_a[k], weights_b[k]) for k in weights_a)
    return equal and records_a == records_b


def twins(root: Path, steps: int, sample: list[Case]) -> Iterator[tuple[Path, float]]:
    """Runs that are not killed, and how long each took in seconds."""
    for number, case in enumerate(sample):
        start = time.monotonic()
        folder = root / f"twin{number}"
        assert wait(fork(flags(case, folder, steps))) == 0
        yield folder, time.monotonic() - start


def torture(runs: int, steps: int = 60, seed: int = 0) -> int:
    """Kill ``runs`` runs; print runs, kills and losses; return the losses."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    kills: Counter[str] = Counter()
    losses = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sample = [*SAMPLE, *EVERY_METHOD][: max(1, runs)]
        unkilled = list(twins(root, steps, sample))
        for number in range(runs):
            case, (twin, length) = sample[number % len(sample)], unkilled[number % len(sample)]
            run = flags(case, root / "run", steps)
            if case.fast and chance.random() < 0.3:  # the kill may come while images are decoded
                for cache in root.glob("*/.decoded"):
                    shutil.rmtree(cache)
            for aim in chance.choices(["anywhere", *AIMS], weights=[3, 1, 1, 1], k=chance.randrange(1, 4)):
                if not (root / "run" / "done").exists():
                    kills[aim] += killed(run, aim, chance, length)
            assert wait(fork(run)) == 0
            if not same(twin, root / "run"):
                losses += 1
                print(f"LOST: {case}, run {number} of seed {seed}")
            (root / "run").rename(root / f"run{number}")
    where = ", ".join(f"{count} {aim}" for aim, count in sorted(kills.items()))
    print(f"kills: {runs} runs, {kills.total()} kills ({where}), losses {losses}", flush=True)
    return losses
