"""What speed costs in accuracy: the same runs in fp32, read and augmented as DomainBed does, and in bf16 from the cache
with augmentation on the device; on RotatedDigits, which has neither files nor augmentation, and on a folder of images.

ERM and SAM, every test environment, three trials, training-domain selection. Runs are paired by test environment and
trial; the interval is 95 %, Student's over environments, as of ``collect_results --compare``. The same command again
with the same --work_dir goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import PACS, make_images
from benchmarks.tables import RESULTS, facts_of, write
from domainbed_adm.cli import main as command
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import paired_difference
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.run_args import words
from domainbed_adm.system.console import Parser
from domainbed_adm.system.process import cpu_count

ALGORITHMS = ["ERM", "SAM"]
FAST = {"precision": "bf16", "cache": True, "augment_on": "device"}
#: Hparams of each dataset.
DATASETS: dict[str, dict[str, Any]] = {
    "RotatedDigits": {"cnn_width": 8, "batch_size": 8, "lr": 0.005},
    "PACS": {"cnn_width": 16, "batch_size": 16, "lr": 0.005, "image_size": 28},
}
_NAMES = {"PACS": "made images"}
_SELECTION = SELECTION_METHODS["training-domain"]


def launch(dataset: str, flags: dict[str, Any], folder: Path) -> None:
    """Run the sweep of one dataset with these flags.

    Raises:
        UserError: a run failed.
    """
    sweep = {"datasets": [dataset], "algorithms": ALGORITHMS, "hparams": json.dumps(DATASETS[dataset])}
    sweep |= {
        "n_hparams": 1,
        "single_test_envs": True,
        "skip_confirmation": True,
        "skip_model_save": True,
        "reuse_processes": True,
    }
    line = ["sweep", "launch", *words(sweep | flags | {"output_dir": str(folder), "jobs": cpu_count()})]
    print(shlex.join(["domainbed-adm", *line]), flush=True)
    if command(line):
        raise UserError(f"a run of {folder} failed")


def compared(dataset: str, slow: Path, fast: Path) -> list[dict[str, str]]:
    """A row for each algorithm."""
    boards = [Board(load_runs(folder), [_SELECTION]) for folder in (slow, fast)]
    table = []
    for algorithm in ALGORITHMS:
        trials = [
            {
                (env, trial): 100 * accuracy
                for env in range(len(board.environments[dataset]))
                for trial, accuracy in board.trials(_SELECTION, dataset, algorithm, env).items()
            }
            for board in boards
        ]
        pairs = sorted(trials[0].keys() & trials[1].keys())
        ours, theirs = ([side[pair] for pair in pairs] for side in reversed(trials))
        found = paired_difference(ours, theirs, [env for env, _ in pairs])
        interval = found.interval
        table.append(
            {
                "dataset": _NAMES.get(dataset, dataset),
                "algorithm": algorithm,
                "pairs": str(found.n),
                "environments": str(found.n_environments),
                "fp32": f"{sum(theirs) / len(theirs):.2f}",
                "fast": f"{sum(ours) / len(ours):.2f}",
                "difference": f"{found.mean:+.2f}",
                "interval": f"{interval[0]:+.2f} to {interval[1]:+.2f}" if interval else "-",
                "coverage": "{:.0f} to {:.0f} %".format(*found.coverage) if found.coverage else "-",
                "p": "-" if found.p is None else f"{found.p:.2g}",
                "remark": "; ".join(found.remarks),
            }
        )
    return table


def main(argv: Sequence[str]) -> int:
    """Run, compare, print and store; returns the exit code."""
    parser = Parser(
        "python -m benchmarks.precision_accuracy",
        description=__doc__,
        examples="  python -m benchmarks.precision_accuracy --work_dir results/precision",
    )
    parser.add_argument("--steps", type=int, default=300, help="of a run (default 300)")
    parser.add_argument("--trials", type=int, default=3, help="default 3")
    parser.add_argument("--images", type=int, default=210, help="of each domain of the made images (default 210)")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--work_dir", type=Path, help="folder of the runs (default: a temporary one)")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        root = args.work_dir or Path(name)
        data = make_images(root / "data", dict.fromkeys(PACS, args.images), 32)
        size = {"steps": args.steps, "n_trials": args.trials, "checkpoint_freq": max(1, args.steps // 3)}
        table: list[dict[str, str]] = []
        for dataset in args.datasets:
            folders = []
            for kind, flags in (("fp32", {}), ("fast", FAST)):
                folders.append(root / f"{dataset}-{kind}")
                launch(dataset, size | {"data_dir": str(data), "workers": 0} | flags, folders[-1])
            table += compared(dataset, *folders)
    facts = facts_of(torch.device("cuda" if torch.cuda.is_available() else "cpu")) | {
        "fast": " ".join(words(FAST)),
        "runs": f"{args.steps} steps, {args.trials} trials, every test environment, training-domain selection",
        **{f"hparams of {_NAMES.get(name, name)}": json.dumps(DATASETS[name]) for name in args.datasets},
        "made images": f"{len(PACS)} domains x {args.images} of 32 px",
        "difference": "fast - fp32 in percentage points; interval 95 %, Student's over test environments",
    }
    write("precision_accuracy", table, facts, args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
