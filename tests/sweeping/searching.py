"""Jobs of a search that end in milliseconds: a stand-in for ``train`` whose accuracies follow from the hparams.

``python -m tests.sweeping.searching FLAGS`` is ``domainbed-adm search FLAGS`` with such jobs.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.scripts import search
from domainbed_adm.sweeping.jobs import Job

#: Each argument is JSON. As ``train``, it holds the folder's lock, and exits with 75 where another holds it.
_JOB = """
import fcntl, json, math, os, sys, time
folder, args, checkpoints, pause = map(json.loads, sys.argv[1:])
os.makedirs(folder, exist_ok=True)
os.chdir(folder)
lock = open('.lock', 'w')
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(75)
if os.path.exists('done'):
    sys.exit(0)
hparams = json.loads(args['hparams'])
if hparams['lr'] < 1e-4 and hparams.get('label_smoothing'):
    sys.exit(3)
best = 1 - abs(math.log10(hparams['lr']) + 3.5) / 4 - 0.01 * args['test_envs'][0] - 0.001 * args['trial_seed']
known = len(open('results.jsonl').readlines()) if os.path.exists('results.jsonl') else 0
for step in range(known, checkpoints):
    time.sleep(pause)
    value = best * (step + 1) / checkpoints
    record = {'step': step, 'args': args, 'hparams': hparams}
    for env in range(6):
        accuracy = 1 - value if env in args['test_envs'] else value
        record |= {f'env{env}_in_acc': accuracy, f'env{env}_out_acc': accuracy}
    with open('results.jsonl', 'a') as file:
        file.write(json.dumps(record) + '\\n')
with open('done', 'a') as file:
    file.write('done')
"""

#: Of a search whose jobs are these.
FLAGS = ["--dataset", "RotatedDigits", "--algorithm", "SAM", "--steps", "2"]


def stand_in(checkpoints: int = 2, pause: float = 0.0) -> property:
    """To be set as ``Job.command``."""

    def command(job: Job) -> str:
        told = (str(job.output_dir), job.train_args, checkpoints, pause)
        return shlex.join([sys.executable, "-S", "-c", _JOB, *map(json.dumps, told)])

    return property(command)


def trials(folder: Path) -> list[dict[str, object]]:
    """The first line of every job's records, by hparams_seed."""
    firsts = [json.loads(path.read_text().splitlines()[0]) for path in folder.glob("*/results.jsonl")]
    return sorted(firsts, key=lambda one: one["args"]["hparams_seed"])


if __name__ == "__main__":
    Job.command = stand_in(2, 0.05)  # type: ignore[method-assign, assignment]
    sys.exit(run(search.main, sys.argv[1:]))
