"""What TPE gains over random search: ERM on RotatedDigits, as many trials of each, several seeds of the sampler.

Learning rate, weight decay and label smoothing are searched; objective and choice are training-domain validation.
The first ten trials of both samplers are the same jobs, and are trained once. The same command again with the same
--work_dir goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from domainbed_adm.cli import main as command
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.top_hparams import Candidate, rankings
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.run_args import words
from domainbed_adm.sweeping.search import N_RANDOM, in_words
from domainbed_adm.system.console import Parser
from domainbed_adm.system.process import cpu_count

SPACE = {
    "lr": {"low": 1e-4, "high": 0.1, "log": True},
    "weight_decay": {"low": 1e-6, "high": 0.01, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.3},
}
HPARAMS = {"cnn_width": 8, "batch_size": 8}
SAMPLERS = ("random", "tpe")


def search(folder: Path, sampler: str, seed: int, trials: int, steps: int) -> None:
    """Run one search, or go on with it.

    Raises:
        UserError: a trial failed.
    """
    flags = {"dataset": "RotatedDigits", "algorithm": "ERM", "test_envs": [0], "sampler": sampler, "seed": seed}
    flags |= {"n_trials": trials, "steps": steps, "checkpoint_freq": steps, "output_dir": str(folder)}
    flags |= {"search_space": json.dumps(SPACE), "hparams": json.dumps(HPARAMS)}
    line = ["search", *words({**flags, "skip_model_save": True, "reuse_processes": True, "jobs": cpu_count()})]
    print(shlex.join(["domainbed-adm", *line]), flush=True)
    if command(line):
        raise UserError(f"a trial failed in {folder}")


def candidates(folder: Path) -> list[Candidate]:
    """The trials of a search, best first."""
    (ranking,) = rankings(load_runs(folder), SELECTION_METHODS["training-domain"], together=True)
    return ranking.candidates


def best_of_first(trials: Iterable[Candidate], count: int) -> float:
    """The best validation accuracy of the first trials, in %."""
    return 100 * max(one.val_acc for one in trials if one.hparams_seed <= count)


def main(argv: Sequence[str]) -> int:
    """Run what is not there yet, and print the table as Markdown."""
    parser = Parser("python -m benchmarks.search", description=__doc__)
    parser.add_argument("--work_dir", type=Path, required=True, help="folder for the searches")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args(argv)
    rows: dict[str, list[list[float]]] = {name: [] for name in SAMPLERS}
    counts = sorted({min(count, args.trials) for count in (10, 20, 40)})
    print_later = []
    for seed in range(args.seeds):
        folders = {name: args.work_dir / f"{name}_{seed}" for name in SAMPLERS}
        for name in SAMPLERS:
            if name == "tpe":
                _share(folders["random"], folders["tpe"])
            search(folders[name], name, seed, args.trials, args.steps)
            found = candidates(folders[name])
            own = [best_of_first(found, count) for count in counts]
            own += [100 * found[0].test_acc, 100 * float(np.median([one.val_acc for one in found]))]
            rows[name].append(own)
            numbers = " | ".join(f"{value:.1f}" for value in own)
            chosen = in_words({key: found[0].hparams[key] for key in SPACE})
            print_later.append(f"| {seed} | {name} | {numbers} | {chosen} |")
    heads = [f"best of {count}" for count in counts]
    print(f"| seed | sampler | {' | '.join(heads)} | test of the chosen | median trial | chosen |")
    print("| --- " * (len(heads) + 5) + "|")
    print("\n".join(print_later))
    for name in SAMPLERS:
        mean = " | ".join(f"{value:.1f}" for value in np.mean(rows[name], axis=0))
        print(f"| mean | {name} | {mean} | |")
    return 0


def _share(done: Path, new: Path) -> None:
    """Copy the jobs of the first trials of a finished search, which another begins with."""
    new.mkdir(parents=True, exist_ok=True)
    for one in load_runs(done):
        if one.hparams_seed <= N_RANDOM and not (new / one.folder.name).exists():
            shutil.copytree(one.folder, new / one.folder.name)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
