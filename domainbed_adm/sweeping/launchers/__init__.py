"""Command launchers, by the names that ``--command_launcher`` takes; ``extensions.add_launcher`` adds others.

The sweep's folder with its locks is the queue. Workers pull from it; launchers start workers, here or on a cluster. No
launcher owns state: kill it, and the same launch goes on.

A launcher is what it is in DomainBed, a function of a list of command strings: shell-quoted words, that may run
anywhere where the folder's disk is, in any order, any number at a time, and again. What names and folders hold is
data. The list is its own; where it takes ``skip`` it is a sequence to read. It returns their exit codes in the same
order or, where it has only handed them over to a scheduler, None. Any of DomainBed's users' launchers is one as it is.
Its card says what it is handed in our sweeps:

``workers``
    ``--jobs`` commands, each a ``sweep work``: what to give to a scheduler. How such a command ends is among the exit
    codes of ``sweep work --help``; it may be told to end by SIGTERM, and run again, at any time.
``jobs``
    a command for each job that is not done. The process of ``sweep launch`` is then the worker, and its jobs run where
    the launcher runs them. DomainBed's own sweep hands over its jobs, whatever the card says.

It is told more by keyword, where its function has such a parameter (``**options`` takes all):

- ``jobs``: how many commands may run at a time, as ``--jobs`` says.
- ``labels``: a few words on each command, for progress lines.
- ``skip``, for jobs: to be asked with a command's index right before it starts. It claims the job for this process;
  where it says True, another process has it, and the command's exit code is 75.
- ``on_end``, for jobs: to be told the index and the ``pool.Outcome`` of each as it ends; returns what there is to say
  of it in progress lines, or None. Of what is not told so, the exit codes are taken.
- ``folder``, for workers: the sweep's.
- ``follow``, for workers: call it every so often, while they run; it prints a line for each job that has ended since,
  and returns how many have not.
- the flags on its card.

An interrupted launcher (KeyboardInterrupt) ends its commands by SIGTERM, and raises once they have ended.
"""

from __future__ import annotations

import sys

from domainbed_adm.sweeping.launchers.cards import LauncherCard, LauncherFlag, Start

__all__ = ["LAUNCHERS", "LauncherCard", "LauncherFlag", "Start"]

_HERE = "domainbed_adm.sweeping.launchers.local:"
_RAY = "domainbed_adm.sweeping.launchers.ray:"
_REUSE = LauncherFlag(
    "reuse_processes",
    "import torch once for each process at a time, and run every job in a fork of it: same results, sooner",
    default=False,
    kind=bool,
)
_JOBS_PER_GPU = LauncherFlag(
    "jobs_per_gpu",
    "processes at a time on each GPU (default 1). They take turns on the GPU, a slice of time each, unless NVIDIA's "
    "MPS is running (nvidia-cuda-mps-control -d), with which their kernels run side by side. Memory adds up: what the "
    "jobs took is printed at the end",
    default=1,
    kind=int,
    least=1,
)
_SLURM = (
    LauncherFlag("slurm", "long options of sbatch, as partition=gpu,time=4:00:00,gres=gpu:1"),
    LauncherFlag(
        "slurm_file",
        "YAML file of such options, a line each; --slurm overrides it (default ~/.config/domainbed-adm/slurm.yaml)",
    ),
    LauncherFlag("wait", "follow the jobs to their end, as local does", default=False, kind=bool),
)
_ON_RAY = (
    LauncherFlag("ray_address", "HOST:PORT or ray://HOST:PORT (default auto: RAY_ADDRESS, or this machine's)", "auto"),
    LauncherFlag(
        "gpus_per_job",
        "GPUs of each job, 0.25 to have four jobs on each (default: 1 where the nodes have any, else 0)",
        kind=float,
        least=0,
    ),
)

#: Launchers by name.
LAUNCHERS = {
    card.name: card
    for card in (
        LauncherCard("local", "this machine", _HERE + "local", flags=(_REUSE,)),
        LauncherCard(
            "multi_gpu",
            "this machine, each process on a GPU of its own",
            _HERE + "multi_gpu",
            flags=(_REUSE, _JOBS_PER_GPU),
            check=_HERE + "gpus",
        ),
        LauncherCard(
            "slurm",
            "one Slurm array of workers, which come back when they are preempted or their time is up",
            "domainbed_adm.sweeping.launchers.slurm:launch",
            takes="workers",
            flags=(_REUSE, *_SLURM),
            check="domainbed_adm.sweeping.launchers.slurm:check",
        ),
        LauncherCard(
            "ray",
            "a Ray cluster, each job a task on one CPU and a share of the GPUs, run again where its node is lost",
            _RAY + "launch",
            flags=_ON_RAY,
            check=_RAY + "check",
            jobs=sys.maxsize,
        ),
        LauncherCard("dummy", "prints the commands", _HERE + "dummy"),
    )
}
