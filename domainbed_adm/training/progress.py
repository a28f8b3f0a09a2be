"""What people see of a run: what it is, how far it is, and a line at each evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from domainbed_adm import hparams_registry, records
from domainbed_adm.datasets.environment_names import named
from domainbed_adm.run_args import RunArgs
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.training.batches import Schedule
from domainbed_adm.training.setup import Setup

_SILENCE = 30.0


class Progress:
    """What people see: the bar on a terminal, and lines, one at the latest after ``_SILENCE`` seconds."""

    def __init__(self, bar: ProgressBar) -> None:
        self.bar, self._told = bar, time.monotonic()

    def line(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)
        self._told = time.monotonic()

    def after_silence(self, text: str) -> None:
        """Print it where nothing was said for long."""
        if time.monotonic() - self._told > _SILENCE:
            self.line(text)


def loss_of(figures: Mapping[str, Any]) -> str:
    """The loss in words, or what DomainBed's algorithms have in its place: the first figure with loss in its name."""
    names = [name for name in ("loss", *figures) if name in figures and "loss" in name]
    return f"{names[0]} {figures[names[0]]:.4f}" if names else ""


def summary(run: Setup, schedule: Schedule, record: records.Record, evaluation_time: float) -> str:
    """One line for people: where the run is, mean accuracies, and when it may end, evaluations included."""
    step, step_time, sources, test_envs = record["step"], record["step_time"], run.sources, run.args["test_envs"]

    def mean(environments: list[int], kind: str) -> str:
        values = [record[f"env{i}_{kind}_acc"] for i in environments if record[f"env{i}_{kind}_acc"] is not None]
        return f"{np.mean(values):.3f}" if values else "-"

    evaluations = sum(schedule.is_checkpoint(later) for later in range(step + 1, run.n_steps))
    left = (run.n_steps - 1 - step) * step_time + evaluations * evaluation_time
    return (
        f"step {step:>5}/{run.n_steps - 1}  {loss_of(record)}  source in {mean(sources, 'in')} "
        f"out {mean(sources, 'out')}  test ({named(test_envs, run.dataset.environments)}) in {mean(test_envs, 'in')}  "
        f"{step_time:.3f} s/step"
        + ("" if step == 0 and run.n_steps > 1 else f"  {left:.0f} s left")  # the time of a first step tells little
    )


def print_setup(run: Setup, next_step: int) -> None:
    """Print what is run, where, from which step on, and on how much data."""
    if next_step:
        print(f"resumed at step {next_step}")
    shared = f", devices: {run.ranks.count}" if run.ranks.count > 1 else ""
    print(f"device: {run.device}{shared}, workers: {run.workers}, torch: {torch.__version__}")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in run.start_up.items())
    print(f"start-up: {spent} (imports in CPU time)")
    defaults = hparams_registry.default_hparams(run.args["algorithm"], run.args["dataset"])
    chosen = {name: value for name, value in run.hparams.items() if value != defaults[name]}
    plain, needed = RunArgs().recorded(), ("dataset", "algorithm", "test_envs")
    given = {name: value for name, value in run.args.items() if name in needed or value != plain.get(name)}
    for title, values in (("args that are not the default", given), ("hparams that are not the default", chosen)):
        print(f"{title}: " + (", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "none"))
    sizes = [
        f"{i} {name} {len(split.in_)}+{len(split.out)}{'' if i in run.sources else ' (test)'}"
        for i, (name, split) in enumerate(zip(run.dataset.environments, run.splits, strict=True))
    ]
    print(f"samples in+out: {', '.join(sizes)}", flush=True)
