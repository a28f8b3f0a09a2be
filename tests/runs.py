"""Hand-written records, short enough to check by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domainbed_adm.recorded_run import Runs
from domainbed_adm.records import decode_runs

DATA = Path(__file__).parent / "data"


def record(
    *accuracies: tuple[float | None, float | None],
    step: int = 0,
    test_envs: tuple[int, ...] = (0,),
    dataset: str = "PACS",
    algorithm: str = "ERM",
    trial_seed: int = 0,
    hparams_seed: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """One checkpoint; ``accuracies`` are (in, out) of environment 0, 1, ..."""
    args = {
        "dataset": dataset,
        "algorithm": algorithm,
        "test_envs": list(test_envs),
        "trial_seed": trial_seed,
        "hparams_seed": hparams_seed,
        "holdout_fraction": 0.2,
    }
    named = {
        f"env{i}_{split}_acc": pair[j] for i, pair in enumerate(accuracies) for j, split in enumerate(("in", "out"))
    }
    return {"args": args, "step": step, **named, **more}


def as_runs(*records: dict[str, Any], folder: Path = Path("run")) -> Runs:
    """The runs that these records are of, as reading their file would give them."""
    content = "".join(json.dumps(one) + "\n" for one in records)
    return Runs(decode_runs(content.encode(), folder / "results.jsonl"))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of the run in ``folder``, or of the runs below it, as their files have them."""
    files = sorted(folder.rglob("results.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def write(folder: Path, *records: dict[str, Any]) -> Path:
    """Write a run's records into ``folder``; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder
