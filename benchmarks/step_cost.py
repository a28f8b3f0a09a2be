"""Cost of one training step of each method, as ratios: all methods in one process, in turns, round after round.

Absolute times on shared machines wander; within a round the methods see the same machine, so the ratio of a round is
kept and the median over rounds is told. Results are stored under benchmarks/results, named by device and torch version.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import RESULTS, facts_of, write
from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.registry import get_method
from domainbed_adm.system.console import Parser, ProgressBar

LINEAR = {"weighting": "descent", "adm_estimator": "linear"}

#: (method, hparams, baseline of the ratio, target: the largest ratio we accept)
ROWS: list[tuple[str, dict[str, Any], str, float | None]] = [
    ("ERM", {}, "ERM", None),
    ("SAM", {}, "ERM", 2.05),
    ("SAGM", {}, "ERM", 2.10),
    ("FSAM", {}, "ERM", 2.15),
    ("SAM_SSPL_Loss", {}, "SAM", None),
    ("SAM_SSPL_GDM", {"weighting": "both"}, "SAM", None),
    ("SAM_SSPL_GDM", {"weighting": "descent"}, "SAM", 1.06),
    ("SAM_SSPL_ADM", {"weighting": "both"}, "SAM", 1.45),
    ("SAM_SSPL_ADM", {"weighting": "descent"}, "SAM", 1.25),
    ("SAM_SSPL_ADM", LINEAR, "SAM", 1.08),
]


@dataclass
class Runner:
    """One row: its algorithm, and its seconds in each round."""

    name: str
    hparams: dict[str, Any]
    baseline: str
    target: float | None
    algorithm: Any
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def label(self) -> str:
        """The method with the hparams that set it apart."""
        return " ".join([self.name, *map(str, self.hparams.values())])


def build(row: tuple[str, dict[str, Any], str, float | None], size: int, device: torch.device) -> Runner:
    """A row's algorithm: ResNet-18 from scratch, 7 classes, 3 source domains."""
    name, given, baseline, target = row
    hparams = default_hparams(name, "PACS") | {"resnet18": True, "pretrained": False} | given
    torch.manual_seed(0)
    algorithm = get_algorithm_class(name)((3, size, size), 7, 3, hparams).to(device)
    return Runner(name, given, baseline, target, algorithm.train())


def timed_step(runner: Runner, minibatches: list[Any], device: torch.device) -> float:
    """Seconds of one update, the device's work included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    runner.algorithm.update(minibatches)
    if device.type == "cuda":
        torch.cuda.synchronize()
        runner.peak_bytes = max(runner.peak_bytes, torch.cuda.max_memory_allocated())
    return time.perf_counter() - start


def measure(runners: list[Runner], minibatches: list[Any], rounds: int, device: torch.device) -> None:
    """Time every row in turn, ``rounds`` times after two that warm up; every other round goes backwards."""
    with ProgressBar("benchmark", (rounds + 2) * len(runners)) as bar:
        for turn in range(rounds + 2):
            for runner in runners if turn % 2 else reversed(runners):
                seconds = timed_step(runner, minibatches, device)
                if turn >= 2:
                    runner.seconds.append(seconds)
                bar.advance(note=runner.label)


def ratios(runner: Runner, runners: list[Runner]) -> list[float]:
    """Its seconds over its baseline's, round by round."""
    baseline = next(other for other in runners if other.name == runner.baseline)
    return [mine / theirs for mine, theirs in zip(runner.seconds, baseline.seconds, strict=True)]


def rows_of(runners: list[Runner]) -> list[dict[str, str]]:
    """The table as text."""
    table = []
    for runner in runners:
        found = sorted(ratios(runner, runners))
        passes = get_method(runner.name).passes(**runner.hparams)
        median = statistics.median(found)
        table.append(
            {
                "method": runner.name,
                "weighting": runner.hparams.get("weighting", "-"),
                "estimator": runner.hparams.get("adm_estimator", "-"),
                "passes_F": str(passes),
                "ms": f"{1000 * statistics.median(runner.seconds):.1f}",
                "baseline": runner.baseline,
                "ratio": f"{median:.3f}",
                "ratio_min": f"{found[0]:.3f}",
                "ratio_max": f"{found[-1]:.3f}",
                "target": "" if runner.target is None else f"{runner.target:.2f}",
                "met": "" if runner.target is None else ("yes" if median <= runner.target else "no"),
                "peak_MiB": f"{runner.peak_bytes / 2**20:.0f}" if runner.peak_bytes else "",
            }
        )
    return table


def main(argv: Sequence[str]) -> int:
    """Measure, print and store; returns the exit code."""
    parser = Parser(
        "python -m benchmarks.step_cost",
        description=__doc__,
        examples="  python -m benchmarks.step_cost\n  python -m benchmarks.step_cost --rounds 3 --batch_size 4",
    )
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--batch_size", type=int, help="per source domain, of 3; default 4 on a CPU, 32 on a GPU")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = args.batch_size or (32 if device.type == "cuda" else 4)
    random = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, args.image_size, args.image_size)
    minibatches = [
        (torch.randn(shape, generator=random).to(device), torch.randint(7, (batch_size,), generator=random).to(device))
        for _ in range(3)
    ]
    runners = [build(row, args.image_size, device) for row in ROWS]
    measure(runners, minibatches, args.rounds, device)
    facts = facts_of(device) | {
        "threads": str(args.threads) if device.type == "cpu" else "-",
        "network": f"ResNet-18 from scratch, {args.image_size} px, fp32, 3 domains x {batch_size} samples",
        "rounds": str(args.rounds),
        "ratio": "median over rounds of the row's seconds over its baseline's in the same round",
    }
    write("step_cost", rows_of(runners), facts, args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
