"""Sweeps written by hand: what a launch would leave, with made-up learning curves."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.runs import record, write

HOSTILE = "<script>alert(1)</script>"
MADE_BY = {"version": "0.1.0", "git_commit": "abcdef0123456789", "torch": "2.9.1", "device": "Some GPU"}


def write_sweep(
    folder: Path,
    algorithms: Sequence[str],
    datasets: dict[str, Sequence[str]],
    trials: int = 1,
    steps: Sequence[int] = (0, 300, 600),
    **more: Any,
) -> Path:
    """A folder of finished runs, every environment held out alone.

    Args:
        folder: of the sweep.
        algorithms: names.
        datasets: the names of the environments of each.
        trials: how many.
        steps: of the checkpoints.
        more: overrides of each record.
    """
    for dataset, names in datasets.items():
        for algorithm in algorithms:
            for trial in range(trials):
                for env in range(len(names)):
                    job = (dataset, algorithm, trial, env)
                    records = [checkpoint(job, step, steps[-1], names) | more for step in steps]
                    run = write(folder / f"{zlib.crc32(repr(job).encode()):08x}", *records)
                    (run / "done").write_text("done")
    return folder


def checkpoint(job: tuple[str, str, int, int], step: int, last: int, names: Sequence[str]) -> dict[str, Any]:
    """One record; methods, trials and environments differ by a little that their names decide."""
    dataset, algorithm, trial, env = job
    luck = [zlib.crc32(repr((job, step, i)).encode()) / 2**32 for i in range(len(names))]
    skill = zlib.crc32(algorithm.encode()) / 2**32 / 10
    progress = 1 - math.exp(-5 * step / last)
    accuracies = [(0.1 + (0.6 + skill + 0.05 * i) * progress + 0.04 * luck[i],) * 2 for i in range(len(names))]
    return record(
        *((min(a, 0.99), min(b, 0.99)) for a, b in accuracies),
        step=step,
        test_envs=(env,),
        dataset=dataset,
        algorithm=algorithm,
        trial_seed=trial,
        loss=2.3 * math.exp(-4 * progress) + 0.05 * luck[0],
        step_time=0.2 * (1 + algorithm.count("_") + ("SAM" in algorithm)) + 0.01 * luck[0],
        mem_gb=4.0 + algorithm.count("_"),
        hparams={"lr": 5e-5, "batch_size": 32, "rho": 0.05} if "SAM" in algorithm else {"lr": 5e-5, "batch_size": 32},
        provenance=MADE_BY | {"environments": list(names), "seed": trial},
    )
