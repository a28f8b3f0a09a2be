"""What a logger is: a class that is made when a run begins or goes on, told of each record, and of the run's end."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_ACCURACY = re.compile(r"env(?P<env>[0-9]+)_(?P<kind>in|out)_acc")


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is told of a run.

    Attributes:
        folder: the run's.
        config: ``args`` and ``hparams``, as in its records.
        environments: their names.
        next_step: the records of the steps before it are kept; those of later ones, if any, are written anew.
        state: JSON's types by name, kept for this logger in the run's folder: an id to go on with. What it puts there
            when it is made is there when the run goes on. ``step`` is the last step that it was told of.
    """

    folder: Path
    config: Mapping[str, Mapping[str, Any]]
    environments: Sequence[str]
    next_step: int
    state: dict[str, Any]

    @property
    def title(self) -> str:
        """A few words for lists of runs."""
        args = self.config["args"]
        seeds = "".join(f", {what} {args[what]}" for what in ("hparams_seed", "trial_seed") if args[what])
        return f"{args['algorithm']} on {args['dataset']}, {' '.join(self.held_out)} held out{seeds}"

    @property
    def held_out(self) -> list[str]:
        """The names of the environments that are held out."""
        return [self.environments[env] for env in self.config["args"]["test_envs"]]

    @property
    def last_step(self) -> int:
        """The last step that the logger was told of, -1 for none."""
        return int(self.state.get("step", -1))


class Logger:
    """One logger of one run. Whatever it raises is a warning, after which it is told nothing more.

    Attributes:
        last_step: the last step that it holds when it is made; it is then told of all kept records that come later,
            and of no earlier ones.
        hands_over: whether :meth:`log` returns before the figures are on the disk or elsewhere. What was handed over
            when the process was killed counts as logged, so that nothing is there twice.
    """

    last_step: int = -1
    hands_over: ClassVar[bool] = False

    def __init__(self, run: LoggedRun) -> None:
        """Begin, or go on with the same run there."""

    def log(self, step: int, figures: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
        """Take the ``figures`` of a record, and the traced difficulties, (N,) each, NaN or infinite in places."""

    def end(self, status: str) -> None:
        """Take how the run ended: finished, interrupted, diverged or failed."""


def figures_of(record: Mapping[str, Any], environments: Sequence[str]) -> dict[str, float]:
    """The finite numbers of a record by name, but for the step; and what follows from its accuracies.

    ``env0_in_acc`` is also there by the environment's name, ``in_acc/photo``. ``train_in``, ``train_out``, ``test_in``
    and ``test_out`` are means over the source environments and over those held out, as in SWAD's fork of DomainBed.
    """
    figures = {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and name != "step"
    }
    named: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    for name, value in figures.items():
        if found := _ACCURACY.fullmatch(name):
            env, kind = int(found["env"]), found["kind"]
            named[f"{kind}_acc/{environments[env]}"] = value
            group = "test" if env in record["args"]["test_envs"] else "train"
            groups.setdefault(f"{group}_{kind}", []).append(value)
    return figures | named | {name: float(np.mean(values)) for name, values in groups.items()}
