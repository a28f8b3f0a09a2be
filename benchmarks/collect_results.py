"""How long ``collect_results`` takes on a large sweep, and how much memory: a whole process, start-up included.

    python -m benchmarks.collect_results --hparams 2 20 [--beside PYTHONPATH]

It writes made-up records into a temporary folder (28 methods, 4 datasets of 4 environments, every environment and every
pair held out, 3 trials, so many hparams seeds, 17 checkpoints a run), runs the command on them, and removes them.
``--beside`` names a checkout of another version, which is timed in turn with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.method.grid import METHODS

DATASETS = ("PACS", "VLCS", "OfficeHome", "TerraIncognita")
HELD_OUT = [list(envs) for size in (1, 2) for envs in combinations(range(4), size)]
STEPS = [*range(0, 4801, 300)]
TRIALS = 3


def write_sweep(folder: Path, hparams_seeds: int) -> int:
    """Write the records of every run; returns the number of runs. Flags, hparams and provenance are as long as ours."""
    count = 0
    for trial in range(TRIALS):
        for dataset in DATASETS:
            for algorithm in METHODS:
                for test_envs in HELD_OUT:
                    for seed in range(hparams_seeds):
                        run = folder / f"{count:032x}"
                        run.mkdir()
                        lines = _lines(dataset, algorithm, test_envs, trial, seed, count)
                        (run / "results.jsonl").write_text(lines)
                        count += 1
    return count


def _lines(dataset: str, algorithm: str, test_envs: list[int], trial: int, seed: int, number: int) -> str:
    draw = random.Random(number).random
    args = {
        "algorithm": algorithm,
        "checkpoint_every": None,
        "checkpoint_freq": 300,
        "data_dir": "/data/domainbed",
        "dataset": dataset,
        "holdout_fraction": 0.2,
        "hparams": None,
        "hparams_seed": seed,
        "output_dir": f"results/sweep/{number:032x}",
        "save_model_every_checkpoint": False,
        "seed": number * 7919,
        "skip_model_save": True,
        "steps": None,
        "task": "domain_generalization",
        "test_envs": test_envs,
        "trial_seed": trial,
        "uda_holdout_fraction": 0,
    }
    hparams = {
        **dict(batch_size=32, class_balanced=False, data_augmentation=True, dinov2=False, freeze_bn=False, lars=False),
        **dict(linear_steps=500, lr=10 ** (-5 + draw()), nonlinear_classifier=False, resnet18=False),
        **dict(resnet50_augmix=True, resnet_dropout=0.1, total_steps=5001, vit=False, vit_attn_tune=False),
        **dict(vit_dropout=0.0, weight_decay=10 ** (-6 + 4 * draw()), rho=0.05, sspl_eta=1.0, adm_alpha=0.004),
    }
    provenance = {
        "device": "NVIDIA H100",
        "environments": list(CARDS[dataset].environments or ()),
        "git_commit": "0" * 40,
        "samples": [2048, 2344, 1670, 3929],
        "seed": number * 7919,
        "torch": "2.9.1",
        "version": "0.1.0",
    }
    # dumped once: what differs between the lines of a run is written by hand, as a writer would sort it
    head, middle = (
        f'{{"args": {json.dumps(args, sort_keys=True)}, ',
        f'"hparams": {json.dumps(hparams, sort_keys=True)}, ',
    )
    end = f'"provenance": {json.dumps(provenance, sort_keys=True)}, '
    return "".join(
        head
        + "".join(f'"env{env}_{split}_acc": {0.3 + 0.6 * draw()}, ' for env in range(4) for split in ("in", "out"))
        + f'"epoch": {step / 41.5}, {middle}"loss": {2 * draw()}, "mem_gb": 9.1, {end}"step": {step}, '
        + f'"step_time": {0.2 + 0.1 * draw()}}}\n'
        for step in STEPS
    )


def measure(folder: Path, checkout: Path) -> tuple[float, float, float, str]:
    """Run the command once; returns wall and CPU seconds, peak memory in MB, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "domainbed_adm.scripts.collect_results", "--input_dir", str(folder)]
    peak = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    peak += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_maxrss, file=sys.stderr)"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", peak, *command], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(done.stderr.split()[-1]) / 1024, done.stdout


def main() -> None:
    """Print a table: a row for each size of the sweep and each checkout, the best of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hparams", type=int, nargs="+", default=[2], help="hparams seeds: 3,360 runs for each")
    parser.add_argument("--beside", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    checkouts = {"this": Path(__file__).parents[1], **({"other": args.beside} if args.beside else {})}
    print("| runs | records | checkout | seconds | CPU seconds | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    for seeds in args.hparams:
        with tempfile.TemporaryDirectory() as folder:
            runs = write_sweep(Path(folder), seeds)
            found = [
                (name, measure(Path(folder), path)) for _ in range(args.rounds) for name, path in checkouts.items()
            ]
            if len({printed for _, (*_, printed) in found}) > 1:
                sys.exit("the checkouts print different tables")
            for name in checkouts:
                wall, cpu, peak = (
                    min(values) for values in list(zip(*(m for n, m in found if n == name), strict=True))[:3]
                )
                print(
                    f"| {runs:,} | {runs * len(STEPS):,} | {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |", flush=True
                )


if __name__ == "__main__":
    main()
