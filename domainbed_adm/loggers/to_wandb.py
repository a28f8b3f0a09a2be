"""Weights & Biases. Its own variables say where to: WANDB_PROJECT (default domainbed_adm), WANDB_ENTITY, WANDB_MODE.

Its files lie in the run's folder, where ``wandb sync`` finds what WANDB_MODE=offline kept there. The group is the
folder above the run's, a sweep's name say, unless WANDB_RUN_GROUP is set.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

import numpy as np

from domainbed_adm.loggers.interface import LoggedRun, Logger

#: Seconds to wait for the server when a run begins, unless WANDB_INIT_TIMEOUT is set; without it, wandb waits 90.
_PATIENCE = 30.0


class WandB(Logger):
    """The same run there goes on, by the id that the run's folder keeps."""

    hands_over = True

    def __init__(self, run: LoggedRun) -> None:
        import wandb

        self.last_step = run.last_step
        run.state.setdefault("id", secrets.token_hex(4))
        args = run.config["args"]
        known = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _PATIENCE}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "domainbed_adm"),
            group=os.environ.get("WANDB_RUN_GROUP", run.folder.resolve().parent.name),
            name=os.environ.get("WANDB_NAME", run.title),
            id=run.state["id"],
            resume="allow",
            dir=run.folder,
            config={name: dict(values) for name, values in run.config.items()},
            tags=[str(args["algorithm"]), str(args["dataset"])],
            # out.txt has what is printed, and wandb's own capture would stand between
            settings=wandb.Settings(console="off", silent=True, **known),
        )
        self._run.summary["status"] = "running"
        if not self._run.offline:
            print(f"wandb: {self._run.url}")

    def log(self, step: int, figures: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
        """As :class:`Logger` says."""
        self._run.log(dict(figures), step=step)

    def end(self, status: str) -> None:
        """As :class:`Logger` says."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "finished" else 1)
