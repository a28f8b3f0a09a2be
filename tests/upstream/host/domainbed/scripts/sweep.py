"""Many runs of the small host, one for each algorithm and test environment."""

import argparse
import hashlib
import json
import shlex
from pathlib import Path

from domainbed import algorithms, command_launchers, datasets
from domainbed.lib.seeds import seed_of


def jobs(args):
    for algorithm in args.algorithms:
        for env in range(datasets.num_environments(args.dataset)):
            flags = {"algorithm": algorithm, "dataset": args.dataset, "test_envs": env, "data_dir": args.data_dir}
            flags |= {"seed": seed_of(algorithm, env)}
            flags |= {"steps": args.steps} if args.steps else {}
            flags |= {"hparams": args.hparams} if args.hparams else {}
            folder = hashlib.md5(json.dumps(flags, sort_keys=True).encode()).hexdigest()
            yield flags | {"output_dir": str(Path(args.output_dir) / folder)}


def command(flags):
    words = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in sorted(flags.items()))
    return f"python -m domainbed.scripts.train {words}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["launch"])
    parser.add_argument("--algorithms", nargs="+", default=algorithms.ALGORITHMS)
    parser.add_argument("--dataset", default="Pixels")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--hparams")
    parser.add_argument("--command_launcher", required=True)
    args = parser.parse_args()
    command_launchers.REGISTRY[args.command_launcher]([command(flags) for flags in jobs(args)])
