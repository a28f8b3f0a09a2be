"""The small host's table: each algorithm's accuracy on the environments held out."""

import argparse
import json
from pathlib import Path

from domainbed import algorithms

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--input_dir", required=True)
    args = parser.parse_args()
    records = [json.loads(file.read_text().splitlines()[-1]) for file in Path(args.input_dir).glob("*/results.jsonl")]
    for name in algorithms.ALGORITHMS:
        own = [record for record in records if record["args"]["algorithm"] == name]
        found = [record[f"env{env}_in_acc"] for record in own for env in record["args"]["test_envs"]]
        if found:
            print(f"{name:<20}{100 * sum(found) / len(found):.1f}  ({len(found)} runs)")
