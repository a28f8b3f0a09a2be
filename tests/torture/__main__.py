"""``make torture``: what must survive, at a size that takes minutes; exit code 1 where anything was lost."""

import argparse
import sys

from tests.torture import disks, kills, launchers, ray, slurm


def main() -> int:
    """Run the parts that are named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("parts", nargs="*", help="kills launchers disks slurm ray (default: all)")
    parser.add_argument("--runs", type=int, default=200, help="of kills (default 200)")
    parser.add_argument("--jobs", type=int, default=40, help="of launchers (default 40)")
    parser.add_argument("--rounds", type=int, default=10, help="of preemption by slurm (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = {
        "kills": lambda: kills.torture(args.runs, seed=args.seed),
        "launchers": lambda: launchers.torture(args.jobs, args.seed),
        "disks": disks.torture,
        "slurm": lambda: slurm.torture(args.rounds, args.seed),
        "ray": lambda: ray.torture(args.jobs, args.seed),
    }
    return int(sum(parts[name]() for name in args.parts or parts) > 0)


if __name__ == "__main__":
    sys.exit(main())
