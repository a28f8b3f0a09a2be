"""Whole runs as a user starts them, from files on disk to the last record: images per second against the floor, which
is the same network, batches and precision on tensors in memory, and against DomainBed where DOMAINBED_DIR names one.

ResNet-18 from scratch, 224 px, 3 source domains x 8 images, ERM, 21 steps, two evaluations of 3,700 JPEGs of 227 px.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import make_images
from benchmarks.tables import RESULTS, facts_of, write
from benchmarks.timed import Rates, beside_floor, environment, timed_run
from domainbed_adm.cli import run
from domainbed_adm.run_args import RunArgs
from domainbed_adm.system.console import Parser
from domainbed_adm.system.process import cpu_count

DOMAINBED = "DomainBed"
#: Flags of each row of ours, and how many times faster than DomainBed it is to be.
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    "fp32": ({}, None),
    "fp32, cache": ({"cache": True}, 3.0),
    "bf16, cache": ({"cache": True, "precision": "bf16"}, 5.0),
}
_FLOOR_TARGET = 0.9


@dataclass(frozen=True)
class Size:
    """How much each row does."""

    per_domain: int = 925
    side: int = 227
    steps: int = 21
    checkpoint_freq: int = 20
    floor_seconds: float = 4.0
    hparams: dict[str, Any] = field(default_factory=lambda: {"batch_size": 8, "resnet18": True})

    @property
    def evaluated(self) -> int:
        """Images of one evaluation: all, of four domains."""
        return 4 * self.per_domain

    @property
    def images(self) -> int:
        """Images of one step, of three domains."""
        return 3 * int(self.hparams["batch_size"])


FULL = Size()
SMALL = Size(14, 32, 3, 2, 0.1, {"batch_size": 2, "resnet18": True, "image_size": 32})


@dataclass
class Measured:
    """A row's runs, and the floor beside each."""

    runs: list[Rates] = field(default_factory=list)
    floors: list[Rates] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Over its runs."""
        return statistics.median(getattr(rates, name) for rates in self.runs)

    def share(self, name: str) -> float:
        """Median over rounds of what it reached of the floor; of the seconds, the floor's over the run's."""
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(self.runs, self.floors, strict=True)]
        return statistics.median(floor / own if name == "seconds" else own / floor for own, floor in pairs)


def ours(
    data: Path, folder: Path, size: Size, threads: int, workers: int, flags: dict[str, Any]
) -> tuple[Rates, Rates]:
    """One run and its floor."""
    args = RunArgs(
        data_dir=str(data),
        dataset="PACS",
        test_envs=(3,),
        steps=size.steps,
        checkpoint_freq=size.checkpoint_freq,
        hparams=json.dumps(size.hparams | {"pretrained": False}),
        threads=threads,
        workers=workers,
        output_dir=str(folder),
        **flags,
    )
    return beside_floor(args, size.floor_seconds)


def domainbeds(checkout: Path, data: Path, folder: Path, size: Size) -> Rates:
    """One run of DomainBed's own, with its 8 loading processes for each loader and one thread for each CPU.

    It knows no network that is not pretrained, so random weights lie where torchvision looks for downloaded ones.
    """
    from torchvision.models import ResNet18_Weights, resnet18

    weights = folder.parent / "torch" / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(resnet18().state_dict(), weights)
    hparams = json.dumps(
        {"batch_size": size.hparams["batch_size"], "resnet18": True, "resnet50_augmix": False, "freeze_bn": False}
    )
    command = [sys.executable, "-m", "domainbed.scripts.train", "--data_dir", str(data), "--dataset", "PACS"]
    command += ["--algorithm", "ERM", "--test_envs", "3", "--steps", str(size.steps), "--hparams", hparams]
    command += ["--checkpoint_freq", str(size.checkpoint_freq), "--output_dir", str(folder)]
    env = environment(TORCH_HOME=str(folder.parent / "torch"))
    return timed_run(command, folder, size.images, size.evaluated, env=env, cwd=checkout)


def rows_of(measured: dict[str, Measured]) -> list[dict[str, str]]:
    """The table as text."""
    theirs = measured.get(DOMAINBED)
    table = []
    for name, row in measured.items():
        target = ROWS[name][1] if name in ROWS else None
        times = theirs.median("seconds") / row.median("seconds") if theirs else None
        shares = {part: row.share(part) if row.floors else None for part in ("training", "evaluation", "seconds")}
        whole = shares["seconds"]
        table.append(
            {
                "run": name,
                "seconds": f"{row.median('seconds'):.1f}",
                "training_images_per_s": f"{row.median('training'):.1f}",
                "evaluation_images_per_s": f"{row.median('evaluation'):.1f}",
                **{f"{part}_of_floor": "" if share is None else f"{share:.2f}" for part, share in shares.items()},
                "floor_met": "" if whole is None else "yes" if whole >= _FLOOR_TARGET else "no",
                "times_domainbed": "" if times is None else f"{times:.2f}",
                "target": "" if target is None else f"{target:.1f}",
                "met": "" if target is None or times is None else "yes" if times >= target else "no",
            }
        )
    return table


def main(argv: Sequence[str]) -> int:
    """Measure, print and store; returns the exit code."""
    parser = Parser(
        "python -m benchmarks.whole_runs",
        description=__doc__,
        examples="  DOMAINBED_DIR=../DomainBed python -m benchmarks.whole_runs --rounds 3",
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each row, in turns (default 1)")
    parser.add_argument("--threads", type=int, default=cpu_count(), help="of our runs (default: one for each CPU)")
    parser.add_argument("--workers", type=int, default=0, help="of our runs (default 0: others hold up the threads)")
    parser.add_argument("--rows", nargs="+", choices=[DOMAINBED, *ROWS], default=[DOMAINBED, *ROWS], metavar="ROW")
    parser.add_argument("--data_dir", type=Path, help="folder to keep the images in (default: a temporary one)")
    parser.add_argument("--small", action="store_true", help="a size of seconds, to see that it works")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    size, checkout = SMALL if args.small else FULL, os.environ.get("DOMAINBED_DIR")
    names = [name for name in args.rows if name != DOMAINBED or checkout]
    measured = {name: Measured() for name in names}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_images(args.data_dir or root / "data", dict.fromkeys("ACPS", size.per_domain), size.side)
        for turn in range(args.rounds):
            for row in names:
                start = time.monotonic()
                folder = root / f"{row}{turn}"
                if row == DOMAINBED:
                    rates = domainbeds(Path(str(checkout)).resolve(), data, folder, size)
                else:
                    rates, floor = ours(data, folder, size, args.threads, args.workers, ROWS[row][0])
                    measured[row].floors.append(floor)
                measured[row].runs.append(rates)
                print(f"round {turn + 1}, {row}: {rates}, {time.monotonic() - start:.0f} s with the floor", flush=True)
    network = (
        f"ResNet-18 from scratch, {size.hparams.get('image_size', 224)} px, 3 domains x {size.hparams['batch_size']}"
    )
    facts = facts_of(torch.device("cuda" if torch.cuda.is_available() else "cpu")) | {
        "cpus": str(cpu_count()),
        "threads, workers": f"{args.threads}, {args.workers}; {DOMAINBED}'s are its defaults",
        "run": f"ERM, {network}, {size.steps} steps, 2 evaluations of {size.evaluated} JPEGs of {size.side} px",
        "rounds": f"{args.rounds}, medians",
        "of_floor": "the floor is the same network, batches and precision on tensors in memory, without a start",
        "cache": "made before the run",
    }
    write("small_runs" if args.small else "whole_runs", rows_of(measured), facts, args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
