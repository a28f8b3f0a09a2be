"""What ``adm_refresh`` costs and keeps: a step's time against SAM's, the rank correlation of used with fresh scores.

Cost: ratios to SAM in one process, in turns, of process time; the median over rounds. Correlation: SAM_SSPL_ADM trained
on RotatedDigits (domains 1 to 3, images enlarged where the network wants more than 28 px); every 50 steps the step
compares the scores that weighted it with exact ones at its own parameters, over the samples that have one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.tables import device_name
from domainbed_adm.algorithms import Minibatch, get_algorithm_class
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.system.console import Parser, ProgressBar, show

#: "small_cnn" has GroupNorm, the other BatchNorm in training mode.
NETWORKS = {"small_cnn": 28, "resnet18": 64}


def build(name: str, network: str, given: dict[str, Any]) -> Any:
    """A method for ten classes and three source domains."""
    size = NETWORKS[network]
    hparams = default_hparams(name, "RotatedDigits" if size == 28 else "PACS") | given
    hparams |= {"input_std": None} if size == 28 else {"resnet18": True, "pretrained": False, "input_std": None}
    torch.manual_seed(0)
    return get_algorithm_class(name)((1, size, size), 10, 3, hparams).train()


def refreshed(share: float) -> dict[str, Any]:
    """Hparams of weighting "memory" with this share."""
    return {"weighting": "memory", "adm_refresh": share}


class Digits:
    """Batches of three domains of RotatedDigits, drawn with replacement, the same for every run."""

    def __init__(self, network: str, batch_size: int) -> None:
        dataset = get_dataset_class("RotatedDigits")(None, [0], {})
        environments: list[Any] = dataset.datasets[1:4]
        size = NETWORKS[network]
        self.inputs = [F.interpolate(environment.inputs, size=size) for environment in environments]
        self.targets = [torch.as_tensor(environment.targets) for environment in environments]
        self.batch_size, self.random = batch_size, torch.Generator().manual_seed(0)

    def __call__(self) -> list[tuple[Tensor, Tensor]]:
        """The next minibatches."""
        batch, first = [], 0
        for x, y in zip(self.inputs, self.targets, strict=True):
            drawn = torch.randint(len(y), (self.batch_size,), generator=self.random)
            batch.append(Minibatch(x[drawn], y[drawn], first + drawn))
            first += len(y)
        return batch


def costs(network: str, batch_size: int, rounds: int, shares: Sequence[float]) -> list[list[str]]:
    """Rows of share, median ratio to SAM, and its range."""
    given = [("SAM", {}), *(("SAM_SSPL_ADM", refreshed(share)) for share in shares)]
    algorithms = [build(name, network, hparams | {"total_steps": 5001}) for name, hparams in given]
    digits = Digits(network, batch_size)
    for algorithm in algorithms:  # past the step that compares
        for _ in range(2):
            algorithm.update(digits())
    seconds: list[list[float]] = []
    with ProgressBar(f"cost, {network}", rounds) as bar:
        for _ in range(rounds):
            batch, row = digits(), []
            for algorithm in algorithms:
                start = time.process_time()
                algorithm.update(batch)
                row.append(time.process_time() - start)
            seconds.append(row)
            bar.advance()
    rows = []
    for k, share in enumerate(shares, 1):
        found = [row[k] / row[0] for row in seconds]
        rows.append(
            [network, f"{share:g}", f"{statistics.median(found):.3f}", f"{min(found):.3f}", f"{max(found):.3f}"]
        )
    return rows


def correlations(network: str, batch_size: int, steps: int, given: dict[str, Any], share: float) -> list[float]:
    """The step's own figure, every 50 steps; with share 1 all are refreshed, and compared by a share just below."""
    hparams = given | refreshed(min(share, 1 - 1e-9)) | {"total_steps": steps}
    algorithm, digits, found = build("SAM_SSPL_ADM", network, hparams), Digits(network, batch_size), []
    with ProgressBar(f"{network}, share {share:g}", steps) as bar:
        for _ in range(steps):
            figures = algorithm.update(digits())
            if "adm_rank_correlation" in figures:
                found.append(figures["adm_rank_correlation"])
            bar.advance()
    return found[1:]  # at the first step no score was used


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = Parser("python -m benchmarks.refresh", description=__doc__)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="small_cnn")
    parser.add_argument("--batch_size", type=int, default=16, help="per source domain, of 3; default 16")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.5, 0.25, 0.1])
    parser.add_argument("--rounds", type=int, default=30, help="of the costs; 0 for none (default 30)")
    parser.add_argument("--steps", type=int, default=501, help="of the correlations; 0 for none (default 501)")
    parser.add_argument("--lr", type=float, nargs="+", help="default: the network's default")
    parser.add_argument("--cnn_width", type=int, default=64, help="of small_cnn in the correlations (default 64)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{device_name(torch.device('cpu'))}, 1 thread, torch {torch.__version__}, 3 x {args.batch_size} images")
    if args.rounds:
        table = costs(args.network, args.batch_size, args.rounds, args.shares)
        show(["network", "share", "cost / SAM", "least", "most"], table)
    if args.steps:
        rows = []
        for lr in args.lr or [None]:
            given = {"cnn_width": args.cnn_width} if args.network == "small_cnn" else {}
            given |= {} if lr is None else {"lr": lr}
            for share in args.shares:
                found = correlations(args.network, args.batch_size, args.steps, given, share)
                rows.append(
                    [args.network, str(lr or "default"), f"{share:g}", f"{statistics.mean(found):.3f}"]
                    + [" ".join(f"{value:.2f}" for value in found)]
                )
        show(["network", "lr", "share", "mean correlation", f"every 50 of {args.steps} steps"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
